"""A step whose loss or gradient jumps is noticed at once: said, left out, or gone back before."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_llm.callbacks.skipped_steps import Action, SkippedSteps
from lit_llm.training.guards import Guards, Judged, NotSaved, Opinion, Rewind

ACTIONS: dict[str, Action] = {"warn": "warned", "skip": "skipped", "rewind": "rewound"}

RECENT = 9
"""Steps whose median is what a loss is compared with: few, for it falls fast at the beginning."""

EVERY = 8
"""Steps after which level and noise are worked out again, which takes 20 operations."""

# A jump smaller than this is none, however even the run was before: in nats, and as a factor of
# the gradient's norm.
LEAST_NATS = 0.2
LEAST_FACTOR = 5.0

SIGMA = 1.048
"""Standard deviation of normal noise over the median size of its changes from step to step."""


class SpikeGuard(L.Callback):
    """Compares loss and gradient norm of each step with those of the steps before.

    Their level is the median of the last 9 steps, their noise the median size of the change from
    one step to the next: neither a falling loss nor a single outlier disturbs these. A step is a
    spike if its loss, or the logarithm of its gradient norm, is above the level by more than
    `threshold` standard deviations of the noise, and by no small amount. Spikes do not count for
    level and noise, which are found anew every 8 steps. When `patience` steps in a row are
    spikes, that is the new level.

    The device does all that, so a spike can be left out without anybody waiting for it. The
    terminal and skipped_steps.jsonl say which steps were spikes, and which samples they held.

    Args:
        on_spike: `warn` says so; `skip` leaves the step out; `rewind` goes back to the newest
            checkpoint and passes over the step when it comes again
        threshold: standard deviations of the noise that make a spike
        window: steps that the noise is estimated from; before there are so many nothing is a spike
        patience: spikes in a row that are taken for a new level
        rewind_over: steps that a rewind passes over, up to the spike. With 1 it comes to the same
            as `skip`, unless the weights had been damaged; more undo the updates before it, too.
        enabled: false watches nothing

    Raises:
        Rewind: there was a spike, with `on_spike: rewind`.
    """

    def __init__(
        self,
        on_spike: Literal["warn", "skip", "rewind"] = "warn",
        threshold: float = 10.0,
        window: int = 64,
        patience: int = 10,
        rewind_over: int = 1,
        enabled: bool = True,
    ) -> None:
        least = {"window": (window, RECENT), "patience": (patience, 1)}
        for name, (value, smallest) in {**least, "rewind_over": (rewind_over, 1)}.items():
            if value < smallest:
                raise ValueError(f"{name}={value} is too small: give {smallest} or more")
        if not threshold > 0:
            raise ValueError(f"threshold={threshold} would find a spike everywhere: give about 10")
        self.on_spike = on_spike
        self.threshold = threshold
        self.window = window
        self.patience = patience
        self.rewind_over = rewind_over
        self.enabled = enabled
        self._before = torch.full((2, window), math.nan)
        """loss and logarithm of the gradient norm of earlier steps; for a spike, their level"""
        self._since: list[tuple[Tensor, Tensor]] = []
        """numbers of the steps that `_before` lacks, and which in a row of spikes each was"""
        self._in_a_row = torch.zeros(())
        self._least = torch.tensor([LEAST_NATS, math.log(LEAST_FACTOR)])
        self._limits: Tensor | None = None
        self._passed_over: frozenset[int] = frozenset()
        self._breaking_off = False

    # -- on the device -------------------------------------------------------------------------

    def judge(self, step: int, numbers: Tensor) -> Opinion:
        if self._limits is None:  # a run begins, or goes on
            self._before = self._before.to(numbers.device)
            self._in_a_row = self._in_a_row.to(numbers.device)
            self._least = self._least.to(numbers.device)
            self._since = [(n.to(numbers.device), r.to(numbers.device)) for n, r in self._since]
            self._limits = self._find_limits()
        spike = (numbers > self._limits).any()
        passed_over = step in self._passed_over
        if passed_over:
            spike = torch.ones_like(spike)
        self._in_a_row = (self._in_a_row + 1) * spike
        self._since.append((numbers, self._in_a_row))
        if len(self._since) == EVERY:
            self._move_on()
        if passed_over:
            return Opinion(spike, torch.zeros_like(self._in_a_row))
        if self.on_spike == "warn":
            return Opinion(None, self._in_a_row)
        return Opinion(spike & (self._in_a_row <= self.patience), self._in_a_row)

    def _move_on(self) -> None:
        """Let the latest steps take the place of the oldest."""
        numbers, in_a_row = (
            torch.stack(latest, dim=-1) for latest in zip(*self._since, strict=True)
        )
        new = torch.stack((numbers[0], numbers[1].log()))
        left_out = (new * 0 != 0).any(0) | ((in_a_row > 0) & (in_a_row <= self.patience))
        new = torch.where(left_out, self._level()[:, None], new)
        self._before = torch.cat((self._before[:, EVERY:], new), dim=1)
        self._since = []
        self._limits = self._find_limits()

    def _level(self) -> Tensor:
        # Sorted, for PyTorch's median is not deterministic on GPUs.
        return _sorted(self._before[:, -RECENT:])[:, RECENT // 2]

    def _find_limits(self) -> Tensor:
        """Loss and gradient norm above which a step is a spike, (2,).

        NaN, which nothing is above, while there are too few steps to compare with.
        """
        changes = _sorted(self._before.diff(dim=1).abs())
        unknown = changes[:, -1] * 0  # NaN is sorted to the end
        noise = changes[:, (self.window - 1) // 2] * (SIGMA * self.threshold)
        loss, log_norm = self._level() + torch.maximum(noise, self._least) + unknown
        return torch.stack((loss, log_norm.exp()))

    # -- on the host ---------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or not self.enabled:
            return
        self._file = SkippedSteps(trainer)
        guards = pl_module.guards
        assert isinstance(guards, Guards)
        guards.add(self)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.enabled:
            return
        self._breaking_off = False
        self._passed_over = self._file.passed_over()
        coming = sorted(step for step in self._passed_over if step > trainer.global_step)
        if coming:
            steps = ", ".join(map(str, coming))
            rank_zero_info(f"passed over when they come, as {self._file.path} says: steps {steps}")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._breaking_off = True

    def learn(self, judged: Judged) -> None:
        if not judged.note or not math.isfinite(judged.loss + judged.grad_norm):
            return
        step = judged.step
        found = f"step {step}: loss {judged.loss:.4g}, gradient norm {judged.grad_norm:.4g}"
        if judged.note > self.patience:
            if judged.note == self.patience + 1:
                rank_zero_info(f"{found}: {self.patience} spikes in a row are the new level")
            return
        over = range(max(1, step - self.rewind_over + 1), step + 1)
        self._file.add(
            step,
            "spike",
            ACTIONS[self.on_spike],
            loss=judged.loss,
            grad_norm=judged.grad_norm,
            over={"warn": [], "skip": [step], "rewind": list(over)}[self.on_spike],
        )
        if self.on_spike == "rewind":
            if self._breaking_off:
                raise NotSaved(f"{found} is a spike: nothing is saved behind it")
            # It passes over more with each rewind, so going back comes to an end.
            raise Rewind(f"{found} is a spike", progress=True, limit=1)
        done = "it changes no weight" if self.on_spike == "skip" else "it was learned from"
        rank_zero_info(f"{found} is a spike; {done}; {self._file.path} has its samples")

    # -- checkpoints ---------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        return "SpikeGuard"  # the same whatever the settings: they may change on resume

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let no checkpoint be newer than a spike that training has to go back from."""
        if self.enabled:
            guards = pl_module.guards
            assert isinstance(guards, Guards)
            guards.hear(wait=True)

    def state_dict(self) -> dict[str, Any]:
        return {
            "before": self._before.tolist(),
            "since": [(numbers.tolist(), float(in_a_row)) for numbers, in_a_row in self._since],
            "in_a_row": float(self._in_a_row),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = torch.tensor(state_dict["before"])
        if before.shape != self._before.shape:
            return  # another window: it begins anew
        self._before, self._in_a_row = before, torch.tensor(state_dict["in_a_row"])
        self._since = [(torch.tensor(n), torch.tensor(r)) for n, r in state_dict["since"]]
        self._limits = None


def _sorted(rows: Tensor) -> Tensor:
    """Each row in ascending order, NaN last.

    On a CPU by NumPy: PyTorch gives each of two short rows a thread of its own, and waits
    milliseconds for the second one where the cores are busy.
    """
    if rows.device.type == "cpu":
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(dim=1).values
