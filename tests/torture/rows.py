"""The rows of the battery, and how many trials each has when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

import pytest

ROWS: dict[int, tuple[str, int]] = {
    1: ("resume at a random step", 24),
    2: ("SIGKILL at a random moment, inside a save too", 40),
    3: ("an exception in write, fsync, rename, prune of a save", 80),
    4: ("disk full; a run that cannot fit does not start", 12),
    5: ("flipped bits, truncated, missing and swapped files", 290),
    6: ("checkpoint and configuration do not fit together", 12),
    7: ("preparation killed; an input changed, one added", 22),
    8: ("300 bad records in 3,000 good ones", 12),
    9: ("a line of 256 MB, 10,000 empty files, NULs, nothing to read", 4),
    10: ("NaN and infinity in loss, gradient, parameter", 12),
    11: ("loss spikes; 500 clean steps", 7),
    12: ("a rank asleep, a worker stuck, a save blocked, SIGSTOP", 8),
    13: ("SIGTERM, SIGINT, SIGUSR1", 24),
    14: ("another world size, another micro-batch", 4),
    15: ("malicious pickles and YAML files", 224),
    16: ("planted secrets", 15),
    17: ("bad configurations", 60),
    18: ("control tokens typed as text", 200),
    19: ("a soak of 300 saves with pruning, and what it leaves", 301),
}
"""Number: (what is done, trials)."""


def row(number: int) -> pytest.MarkDecorator:
    """Mark a test as one of a row's; its trials count for that row."""
    assert number in ROWS
    return pytest.mark.row(number)


@dataclass
class Score:
    """What has become of the trials of a row."""

    tried: int = 0
    survived: int = 0
    seconds: float = 0.0


@dataclass
class Trial:
    """One trial of a test, numbered from 0."""

    number: int
    errors: list[Exception]
    score: Score
    failed: bool = field(default=False, init=False)

    def __enter__(self) -> Trial:
        self.score.tried += 1
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None:
            self.score.survived += 1
            return False
        if not isinstance(error, Exception):
            return False
        error.add_note(f"in trial {self.number}")
        self.errors.append(error)
        return True


class Trials:
    """Hands out the trials of a test, and fails it at the end with all that did not survive."""

    def __init__(self, score: Score, full_tier: bool) -> None:
        self.score = score
        self.full_tier = full_tier
        self.errors: list[Exception] = []
        self.given = self.wanted = 0

    def __call__(self, *, full: int, fast: int) -> Iterator[Trial]:
        """Yield `full` trials in the full tier, `fast` in the fast one."""
        count = full if self.full_tier else fast
        self.wanted += count
        for number in range(count):
            self.given += 1
            yield Trial(number, self.errors, self.score)

    @contextmanager
    def one(self) -> Iterator[None]:
        """A single trial, of either tier."""
        for trial in self(full=1, fast=1):
            with trial:
                yield

    def finish(self) -> None:
        assert self.wanted, "a row's test tried nothing"
        assert self.given == self.wanted, f"{self.given} of {self.wanted} trials were made"
        if self.errors:
            raise ExceptionGroup(f"{len(self.errors)} of {self.wanted} trials", self.errors)


def table(scores: dict[int, Score]) -> list[str]:
    """The report: row, tried, survived."""
    lines = [f"{'row':>3}  {'what is done':58} {'tried':>9}  survived  seconds"]
    for number, score in sorted(scores.items()):
        what, total = ROWS[number]
        verdict = "" if is_full(number, score) else "  <-- not full"
        lines.append(
            f"{number:3}  {what:58} {score.tried:4}/{total:<4}  {score.survived:4}/{total:<4} "
            f"{score.seconds:6.0f}{verdict}"
        )
    return lines


def is_full(number: int, score: Score) -> bool:
    """Whether a row's trials were all made and all survived."""
    return score.tried == score.survived == ROWS[number][1]


@contextmanager
def timed(score: Score) -> Iterator[None]:
    start = monotonic()
    try:
        yield
    finally:
        score.seconds += monotonic() - start
