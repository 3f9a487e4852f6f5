"""Processes that do something together: all of them succeed, or each raises the same error."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch.distributed as dist

from lit_llm.checkpoint.folder import SaveFailed
from lit_llm.checkpoint.manifest import CheckpointError

Result = TypeVar("Result")


class Ranks(Protocol):
    """The processes of a run. All of them call the same methods in the same order."""

    rank: int
    size: int

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank, on every process."""

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""


class OneRank:
    """A run of one process."""

    rank, size = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value


class ProcessGroupRanks:
    """The processes of torch.distributed's group."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, value: Any) -> list[Any]:
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0]


def together(ranks: Ranks, action: Callable[[], Result]) -> list[Result]:
    """Do something on every process and gather the results.

    Raises:
        CheckpointError, ValueError, SaveFailed, RuntimeError: what `action` raised on the first
            process on which it failed; on every process, so that none waits for one that is gone.
    """
    error: BaseException | None = None
    result = None
    try:
        result = action()
    except BaseException as raised:  # an interrupt too must not leave the others waiting
        error = raised
    outcomes = ranks.gather((_Failure.of(error, ranks) if error is not None else None, result))
    failures = [failure for failure, _ in outcomes if failure is not None]
    if error is not None and not isinstance(error, Exception):
        raise error
    if failures:
        raise failures[0].as_exception() from error
    return [result for _, result in outcomes]


def on_first(ranks: Ranks, action: Callable[[], Result]) -> Result:
    """Do something on rank 0 and give its result, or its error, to all."""

    def first() -> Any:
        return action() if ranks.rank == 0 else None

    return together(ranks, first)[0]


@dataclass
class _Failure:
    """An exception in words; as an object it may not travel."""

    kind: str
    text: str

    @classmethod
    def of(cls, error: BaseException, ranks: Ranks) -> _Failure:
        if isinstance(error, ValueError) and _is_ours(error):
            kind = "CheckpointError" if isinstance(error, CheckpointError) else "ValueError"
            return cls(kind, str(error))
        if isinstance(error, SaveFailed):
            return cls(str(error.errno), error.strerror or "")
        what = f"{type(error).__name__}: {error}"
        return cls("other", f"process {ranks.rank} of {ranks.size} failed: {what}")

    def as_exception(self) -> Exception:
        if self.kind.isdecimal():
            return SaveFailed(int(self.kind), self.text)
        kinds = {"CheckpointError": CheckpointError, "ValueError": ValueError}
        return kinds.get(self.kind, RuntimeError)(self.text)


def _is_ours(error: BaseException) -> bool:
    """Whether the project's own code raised it: what a library raises is to look like a bug."""
    last_frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last_frame.filename).is_relative_to(Path(__file__).parents[1])
