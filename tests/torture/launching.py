"""Commands in processes that can be stopped, killed and watched."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Zygote:
    """The process that forks all others; see zygote.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a signal to the tests is none to what they started
        )
        assert self._answer() == "ready"

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def launch(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        ranks: int = 1,
    ) -> Running:
        """Start `cli.py ARGUMENTS`, or as many ranks of it as torchrun would, and do not wait."""
        self.started += 1
        out, err = (self.folder / f"{self.started}.{name}" for name in ("out", "err"))
        pids: list[int] = []
        for rank, more in enumerate(_rank_environments(ranks)):
            start = {
                "arguments": [str(argument) for argument in arguments],
                "env": {**more, **(env or {})},
                "cwd": str(cwd),
                "out": str(out),
                "err": str(err),
                "group": pids[0] if rank else 0,
            }
            pids.append(self.ask(start=start))
        return Running(self, pids, out, err)


class Running:
    """A command that was started: a process for each rank, in one process group."""

    def __init__(self, zygote: Zygote, pids: list[int], out: Path, err: Path) -> None:
        self._zygote = zygote
        self._files = out, err
        self.pids = pids
        self.codes: list[int | None] = [None] * len(pids)

    @property
    def pid(self) -> int:
        return self.pids[0]

    @property
    def out(self) -> str:
        """Standard output so far, of all ranks."""
        return self._text(0)

    @property
    def err(self) -> str:
        """Standard error so far, of all ranks."""
        return self._text(1)

    def alive(self) -> bool:
        """Whether a rank is still running."""
        for index, pid in enumerate(self.pids):
            if self.codes[index] is None:
                self.codes[index] = self._zygote.ask(poll=pid)
        return None in self.codes

    def wait(self, seconds: float = 120) -> int:
        """Wait for all ranks; the exit code of the first, negative if a signal ended it."""
        end = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > end:
                self.kill_all()
                raise TimeoutError(f"still running after {seconds} s:\n{self.err[-3000:]}")
            time.sleep(0.01)
        code = self.codes[0]
        assert code is not None
        return code

    def send(self, number: int, rank: int = 0) -> None:
        """Send a signal to one rank; one that is gone already gets none."""
        if self.alive() and self.codes[rank] is None:
            os.kill(self.pids[rank], number)

    def send_group(self, number: int) -> None:
        """Send a signal to the whole process group, as a terminal does with Ctrl-C."""
        os.killpg(self.pid, number)

    def kill_all(self) -> None:
        """End every process of the group, children of ranks included."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        while self.alive():
            time.sleep(0.005)

    def _text(self, index: int) -> str:
        path = self._files[index]
        return path.read_text(errors="replace") if path.exists() else ""


def _rank_environments(ranks: int) -> list[dict[str, str]]:
    if ranks == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "torture",
        }
        for rank in range(ranks)
    ]
