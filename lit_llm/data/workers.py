"""Doing many like jobs on several processes, with a bar."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

J = TypeVar("J")
R = TypeVar("R")

ALONE_SECONDS = 0.1  # of a stage, before others are started: small work is done by then
START_SECONDS = 0.3  # that others take to start, at least


class Workers:
    """Runs functions of the top level of a module over picklable jobs.

    Args:
        count: processes; 0 or 1: in this one; None: as many as the machine has cores for us
        progress: draw a bar
    """

    def __init__(self, count: int | None, progress: bool) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.count = (cores or 1) if count is None else count
        self._pool: ProcessPoolExecutor | None = None
        self._started: Future[int] | None = None
        self._bar = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            disable=not progress,
        )

    def __enter__(self) -> Workers:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def say(self, line: str) -> None:
        """Print a line above the bar, if there is a bar."""
        if not self._bar.disable:
            self._bar.console.print(line, highlight=False)

    def map(self, title: str, function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R]:
        """Yield the results in the order of the jobs.

        Raises:
            ValueError: a process died; and whatever `function` raises.
        """
        if not jobs:
            return
        task = self._bar.add_task(title, total=len(jobs))
        start, took = time.monotonic(), 0.0
        for done, job in enumerate(jobs):
            if self.count > 1 and done < len(jobs) - 1 and self._others_take(start, took):
                for result in self._parallel(function, jobs[done:]):
                    self._bar.advance(task)
                    yield result
                return
            before = time.monotonic()
            result = function(job)
            took = time.monotonic() - before
            self._bar.advance(task)
            yield result

    def _others_take(self, start: float, took: float) -> bool:
        """Whether other processes take the next jobs; they are started when it seems worth it.

        Until they are there this process goes on alone, if it can do a job in that time.

        Args:
            start: when this stage began
            took: seconds of its last job
        """
        if self._pool is None:
            if time.monotonic() - start < ALONE_SECONDS:
                return False
            self._start()
        assert self._started is not None
        return took > START_SECONDS or self._started.done()

    def _start(self) -> None:
        self._pool = ProcessPoolExecutor(
            self.count, multiprocessing.get_context("spawn"), initializer=_follow_parent
        )
        self._started = self._pool.submit(os.getpid)

    def _parallel(self, function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R]:
        assert self._pool is not None
        waiting: deque[Future[R | _Refusal]] = deque()
        try:
            for job in jobs:
                waiting.append(self._pool.submit(_done, function, job))
                if len(waiting) > 2 * self.count:  # enough to do, and few jobs in memory
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        except BrokenProcessPool:
            raise ValueError(
                f"one of {self.count} worker processes was killed, perhaps for want of memory: "
                "run again (what is done stays) with fewer workers"
            ) from None


@dataclass(frozen=True)
class _Refusal:
    """What our own code refused in another process."""

    message: str


def _done(function: Callable[[J], R], job: J) -> R | _Refusal:
    """Call a function in a worker; a user's mistake comes out as one, without a traceback."""
    try:
        return function(job)
    except ValueError as error:
        last_frame = traceback.extract_tb(error.__traceback__)[-1]
        if Path(last_frame.filename).is_relative_to(Path(__file__).parents[1]):
            return _Refusal(str(error))
        raise


def _result(future: Future[R | _Refusal]) -> R:
    result = future.result()
    if isinstance(result, _Refusal):
        raise ValueError(result.message)
    return result


def _follow_parent() -> None:
    """End with the parent, however it ends; leave Ctrl-C to it.

    Without this the workers of a parent that was killed wait for their next job forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
