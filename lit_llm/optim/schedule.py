"""Learning-rate schedules: pure functions of the step, so they can be tested and plotted.

To try another one, subclass `Schedule` in a file of your own and name it in YAML:

    model:
      schedule:
        class_path: my_project.Staircase
        init_args: {every: 500}
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Schedule(ABC):
    """Factor of every group's own learning rate.

    How long training lasts is the Trainer's business, so `total_steps` is an argument of the
    call and not a setting.
    """

    @abstractmethod
    def __call__(self, step: int, total_steps: int) -> float:
        """Factor for optimizer step `step`, counted from 0, of `total_steps`."""


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _progress(step: int, start: int, stop: int) -> float:
    return min(1.0, max(0.0, (step - start) / max(1, stop - start)))


def _check(warmup_steps: int, floor: float) -> None:
    if warmup_steps < 0:
        raise ValueError(f"warmup_steps={warmup_steps} is negative: give 0 or more")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor} is no factor: give 0 <= floor <= 1")


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Linear warmup, then the full learning rate."""

    warmup_steps: int = 0
    """Optimizer steps until the factor reaches 1."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, 0.0)

    def __call__(self, step: int, total_steps: int) -> float:
        return _warmup(step, self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Linear warmup, then a straight line down to a floor."""

    warmup_steps: int = 0
    """Optimizer steps until the factor reaches 1."""

    floor: float = 0.0
    """Factor at the end of training."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.floor)

    def __call__(self, step: int, total_steps: int) -> float:
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        return 1 - (1 - self.floor) * _progress(step, self.warmup_steps, total_steps)


@dataclass(frozen=True, kw_only=True)
class WarmupCosine(Schedule):
    """Linear warmup, then half a cosine down to a floor."""

    warmup_steps: int = 0
    """Optimizer steps until the factor reaches 1."""

    floor: float = 0.1
    """Factor at the end of training; a tenth, after Hoffmann et al., 2022, arXiv:2203.15556."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.floor)

    def __call__(self, step: int, total_steps: int) -> float:
        if step < self.warmup_steps:
            return _warmup(step, self.warmup_steps)
        progress = _progress(step, self.warmup_steps, total_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Schedule):
    """Warmup, a plateau, then a straight line down (Hu et al., 2024, arXiv:2404.06395).

    The plateau does not know how long training will last: a run can be prolonged from any of its
    checkpoints by raising max_steps before the decay has begun.
    """

    warmup_steps: int = 0
    """Optimizer steps until the factor reaches 1."""

    decay_share: float = 0.2
    """Share of all steps, at the end, over which the factor falls."""

    floor: float = 0.0
    """Factor at the end of training."""

    def __post_init__(self) -> None:
        _check(self.warmup_steps, self.floor)
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share={self.decay_share} is no share: give 0 to 1")

    def __call__(self, step: int, total_steps: int) -> float:
        decay_from = round(total_steps * (1 - self.decay_share))
        fall = 1 - (1 - self.floor) * _progress(step, decay_from, total_steps)
        return min(_warmup(step, self.warmup_steps), fall)
