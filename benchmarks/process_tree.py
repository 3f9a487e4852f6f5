"""Seconds and memory of a command with all processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.result import ROOT
from benchmarks.rounds import NotRun, last_words

EVERY_SECONDS = 0.1


class Cost(NamedTuple):
    """What a command took."""

    seconds: float
    """from its start to its end"""

    peak_bytes: int
    """most memory that all of its processes held together, shared pages counted once (PSS)"""


def cost_of(
    command: Sequence[str], env: Mapping[str, str] | None = None, seconds: float = 3600
) -> Cost:
    """Run a command to its end; Linux only, for its /proc.

    Raises:
        NotRun: it failed, or took longer than `seconds`.
    """
    peak = 0
    with tempfile.TemporaryFile("w+") as errors:
        before = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=errors,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(EVERY_SECONDS)
                except subprocess.TimeoutExpired:
                    peak = max(peak, held_bytes(process.pid))
                if time.perf_counter() - before > seconds:
                    raise NotRun(f"it took more than {seconds:.0f} s")
            took = time.perf_counter() - before
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            errors.seek(0)
            raise NotRun(last_words(errors.read()))
    return Cost(took, peak)


def held_bytes(session: int) -> int:
    """Memory of all processes of a session."""
    return sum(_pss(folder) for folder in Path("/proc").glob("[0-9]*") if _in(folder, session))


def _in(folder: Path, session: int) -> bool:
    try:
        return os.getsid(int(folder.name)) == session
    except OSError:
        return False


def _pss(folder: Path) -> int:
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
