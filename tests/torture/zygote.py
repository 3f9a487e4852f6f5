"""A process that has imported everything and forks one that runs the command line at each request.

    python -m tests.torture.zygote

An import of the libraries takes longer than a small training run. A forked process shares nothing
with the next one: what it does with signals, files and threads is what a process of its own does.
Requests and answers are lines of JSON: {"start": {...}} -> pid, {"poll": pid} -> exit code or null.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

IMPORTED = (
    "lit_llm.commands.fit",
    "lit_llm.commands.prepare",
    "lit_llm.commands.predict",
    "lit_llm.commands.export",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "sentencepiece",
    "pyarrow.parquet",
    "tensorboard.compat.proto.event_pb2",
)


def serve() -> list[str]:
    """Answer requests until the input ends; returns only in a forked process: what it is to run."""
    codes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "start" in request:
            answer = os.fork()
            if answer == 0:
                return become(**request["start"])
            codes.pop(answer, None)  # an earlier process had this number
            os.setpgid(answer, request["start"]["group"] or answer)
        else:
            pid = request["poll"]
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
            answer = codes.get(pid)
        print(json.dumps(answer), flush=True)
    sys.exit(0)


def become(
    arguments: list[str], env: dict[str, str], cwd: str, out: str, err: str, group: int
) -> list[str]:
    """Turn the forked process into what a shell would have started."""
    if os.getpgrp() != (group or os.getpid()):
        os.setpgid(0, group)
    for name, descriptor, flags in (
        (os.devnull, 0, os.O_RDONLY),
        (out, 1, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (err, 2, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(name, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(env)
    os.chdir(cwd)
    tempfile.tempdir = None  # TMPDIR may be another one now
    sys.path[0:0] = [part for part in env.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.modules["__main__"].__spec__ = None  # else Lightning would start a zygote as second rank
    sys.argv = [str(Path(__file__).parents[2] / "cli.py"), *arguments]
    return arguments


if __name__ == "__main__":
    for name in IMPORTED:
        __import__(name)
    print(json.dumps("ready"), flush=True)
    from lit_llm.cli import main

    main(serve())
