"""Who may say that a step is left out, and how the host learns of it.

A guard judges every step on the device, from numbers that all ranks have alike: so no rank needs
to ask another, and the host does not wait. It hears of the verdict later, when the device
has got there.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Opinion(NamedTuple):
    """What a guard thinks of a step, on the device."""

    skip: Tensor | None
    """bool scalar: the step must change no weight; None: it may"""

    note: Tensor
    """float32 scalar that the guard is told again when the host knows it"""


class Judged(NamedTuple):
    """A step that the host knows all about."""

    step: int
    """counted from 1, as in metrics.csv"""

    loss: float
    grad_norm: float
    note: float


class Guard(Protocol):
    """Judges steps."""

    def judge(self, step: int, numbers: Tensor) -> Opinion:
        """Form an opinion without waiting for the device; called between backward and update.

        Args:
            step: counted from 1
            numbers: float32 (2,), equal on all ranks: the mean loss of the step's valid tokens,
                and the norm of the whole gradient before clipping
        """

    def learn(self, judged: Judged) -> None:
        """Hear, once and in order, what became of each step; all ranks hear it at one place."""


class Rewind(Exception):
    """Training has to go back to its last good checkpoint.

    Args:
        reason: what happened, for the user
        progress: whether going back again and again would come to an end by itself
        limit: how often it may go back without progress

    Attributes:
        saved: whether there is a checkpoint to go back to that is newer than the run's start; who
            saves says so
    """

    def __init__(self, reason: str, *, progress: bool, limit: int) -> None:
        super().__init__(reason)
        self.progress = progress
        self.limit = limit
        self.saved = False


class NotSaved(Exception):
    """A run that breaks off has to begin again before its last step, of which nothing is kept."""


@dataclass
class _OnItsWay:
    """Numbers of a step that are being copied to the host."""

    step: int
    numbers: Tensor
    copied: torch.cuda.Event | None

    def has_arrived(self) -> bool:
        if self.copied is not None:
            return self.copied.query()
        return self.numbers.device.type == "cpu"

    def read(self) -> list[float]:
        if self.copied is not None:
            self.copied.synchronize()
        return self.numbers.tolist()


class Guards:
    """All guards of a run."""

    def __init__(self) -> None:
        self._guards: list[Guard] = []
        self._on_their_way: deque[_OnItsWay] = deque()

    def add(self, guard: Guard) -> None:
        """Ask this one too, from the next step on."""
        if guard not in self._guards:
            self._guards.append(guard)

    def __len__(self) -> int:
        return len(self._guards)

    @torch.no_grad()
    def judge(self, step: int, loss: Tensor, grad_norm: Tensor) -> Tensor | None:
        """Ask every guard; see `Guard.judge` for the arguments.

        Returns:
            A bool scalar on the device, true if the step must change no weight; None if nobody
            could want that.
        """
        if not self._guards:
            return None
        numbers = torch.stack((loss, grad_norm))
        opinions = [guard.judge(step, numbers) for guard in self._guards]
        told = torch.stack((loss, grad_norm, *(opinion.note for opinion in opinions)))
        self._on_their_way.append(_send(step, told))
        skips = [opinion.skip for opinion in opinions if opinion.skip is not None]
        if not skips:
            return None
        return skips[0] if len(skips) == 1 else torch.stack(skips).any()

    def hear(self, *, wait: bool) -> None:
        """Tell the guards about the steps whose numbers are here.

        With several processes on GPUs each hears at another moment, and what a guard does then
        may need all of them: there, call it only with `wait`, at a step that all agree on.

        Args:
            wait: for the steps that the device is still busy with, too
        """
        while self._on_their_way and (wait or self._on_their_way[0].has_arrived()):
            arrived = self._on_their_way.popleft()
            loss, grad_norm, *notes = arrived.read()
            for guard, note in zip(self._guards, notes, strict=True):
                guard.learn(Judged(arrived.step, loss, grad_norm, note))


def _send(step: int, numbers: Tensor) -> _OnItsWay:
    """Start the copy to the host. Without CUDA nothing tells when it is done: `hear` will wait."""
    if numbers.device.type != "cuda":
        return _OnItsWay(step, numbers, None)
    on_host = numbers.to("cpu", non_blocking=True)  # into pinned memory, which PyTorch keeps
    copied = torch.cuda.Event()
    copied.record()
    return _OnItsWay(step, on_host, copied)
