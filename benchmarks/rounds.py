"""Contenders of a table, which take turns in rounds; the other side is `benchmarks.turns`."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.result import ROOT

PEERS = Path(os.environ.get("PEERS") or ROOT / ".venv-peers/bin/python")
ROUNDS = 5
CLEARING_UP = 10  # seconds


class NotRun(Exception):
    """A contender that is not here or broke; the reason."""


class Contender:
    """A process that answers requests.

    Args:
        arguments: of Python, such as ["-m", "benchmarks.peers.train", "litgpt"]
        python: the interpreter; its packages decide who the contender is
        seconds: that it has to be ready, and for each answer
        env: environment variables
        folder: removed when it has ended

    Raises:
        NotRun: it did not get ready.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        python: Path | str = sys.executable,
        seconds: float = 300,
        env: Mapping[str, str] | None = None,
        folder: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self._folder = folder
        if not Path(python).exists():
            name = Path(python).relative_to(ROOT) if Path(python).is_relative_to(ROOT) else python
            raise NotRun(f"{name} is not there: make bench installs it")
        self._seconds = seconds
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(
            [str(python), *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # so that it is stopped with the processes that it starts
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._buffer = b""
        try:
            self.ready = self._answer()
            """What it said first."""
        except BaseException:
            self.close()
            raise

    def ask(self, call: str, /, **arguments: Any) -> Any:
        """Send a request and wait for the answer.

        Raises:
            NotRun: there came none.
        """
        assert self._process.stdin is not None
        if self._process.poll() is not None:
            raise NotRun("it has ended")
        line = json.dumps({"call": call, "arguments": arguments}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NotRun(self._last_words()) from None
        return self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End it: by the end of its input, so that it clears up behind itself, or else by force."""
        if not self._errors.closed:
            with suppress(BrokenPipeError, subprocess.TimeoutExpired):
                self._process.communicate(timeout=CLEARING_UP)
            self._kill()
            self._errors.close()
            if self._folder is not None:
                self._folder.cleanup()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _answer(self) -> Any:
        end = perf_counter() + self._seconds
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not self._selector.select(max(0.0, end - perf_counter())):
                self._kill()  # a late answer would be taken for that to the next request
                raise NotRun(f"no answer within {self._seconds:.0f} s")
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise NotRun(self._last_words())
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)["value"]

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return last_words(self._errors.read())


@contextmanager
def contenders(
    makers: Mapping[str, Callable[[], Contender]], not_run: Callable[[str, str], None]
) -> Iterator[dict[str, Contender]]:
    """Start contenders, and end them all at the end.

    Args:
        makers: by name
        not_run: told the name and the reason of each that cannot take part
    """
    with ExitStack() as stack:
        there = {}
        for name, make in makers.items():
            try:
                there[name] = make()
            except NotRun as reason:
                not_run(name, str(reason))
                continue
            stack.callback(there[name].close)
        yield there


def take_turns(
    turns: Mapping[str, Callable[[], float]],
    rounds: int = ROUNDS,
    not_run: Callable[[str, str], None] | None = None,
) -> dict[str, list[float]]:
    """Let each contender measure once per round; another one begins each round.

    Args:
        turns: by name
        rounds: how many
        not_run: told the name and the reason of one that breaks, which is then left out of the
            result; without it the reason is raised
    """
    names = list(turns)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            if name not in found:
                continue
            try:
                found[name].append(turns[name]())
            except NotRun as reason:
                if not_run is None:
                    raise
                not_run(name, f"round {number + 1}: {reason}")
                del found[name]
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def last_words(text: str) -> str:
    """The line of an output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1][:300]
