"""A step whose loss or gradient is no number is left out; weights that are none end the run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_llm.callbacks.skipped_steps import SkippedSteps
from lit_llm.training.guards import Guards, Judged, Opinion, Rewind

REMEDY = "a lower learning rate, a longer warmup, gradient clipping or float32"


class NotFinite(ArithmeticError):
    """NaN or infinity, from which training cannot recover by itself."""


class NanGuard(L.Callback):
    """Leaves out the steps whose loss or gradient is NaN or infinite.

    One NaN in a gradient makes every weight NaN, and each loss after it. So the device looks at
    loss and gradient norm before each update and makes none, without anybody waiting for it; the
    step's samples count as used. The terminal and skipped_steps.jsonl say which they were. The
    weights themselves are looked at after such a step, and before a checkpoint is written: if one
    of them is no number, training goes back to the last good checkpoint, which has none such.

    Args:
        max_in_a_row: so many bad steps one after another end the run
        max_rewinds: how often training may go back without saving a new checkpoint in between
        enabled: false lets everything pass

    Raises:
        NotFinite: names the steps, or the weight, and the file with the samples.
        Rewind: a weight is not finite.
    """

    def __init__(self, max_in_a_row: int = 10, max_rewinds: int = 3, enabled: bool = True) -> None:
        if max_in_a_row < 1:
            raise ValueError(f"max_in_a_row={max_in_a_row} is no number of steps: give 1 or more")
        if max_rewinds < 0:
            raise ValueError(f"max_rewinds={max_rewinds} is negative: give 0 or more")
        self.max_in_a_row = max_in_a_row
        self.max_rewinds = max_rewinds
        self.enabled = enabled
        self._in_a_row = 0
        self._scaled = False
        self._breaking_off = False
        self._saved = False

    # -- on the device -------------------------------------------------------------------------

    def judge(self, step: int, numbers: Tensor) -> Opinion:
        # float16's gradients overflow now and then: that is how its scale is found, and the
        # scaler leaves such a step out itself.
        looked_at = numbers[:1] if self._scaled else numbers
        zero = (looked_at * 0).sum()  # NaN and infinity times 0 are NaN
        return Opinion(zero != 0, zero)

    # -- on the host ---------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit" or not self.enabled:
            return
        self._scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        self._module: Any = pl_module
        self._file = SkippedSteps(trainer)
        guards = pl_module.guards
        assert isinstance(guards, Guards)
        guards.add(self)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._in_a_row = 0
        self._breaking_off = self._saved = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._breaking_off = True

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let nothing be saved of a broken network."""
        if not self.enabled:
            return
        self._module.guards.hear(wait=True)
        self._check_weights(trainer.global_step)
        self._saved = True

    def learn(self, judged: Judged) -> None:
        if judged.note == 0:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        step, value = judged.step, {"loss": judged.loss, "grad_norm": judged.grad_norm}
        reason = "gradient" if math.isfinite(judged.loss) else "loss"
        self._check_weights(step)
        stops = self._in_a_row >= self.max_in_a_row
        self._file.add(step, reason, "stopped" if stops else "skipped", over=[step], **value)
        number = value["loss" if reason == "loss" else "grad_norm"]
        if stops:
            raise NotFinite(
                f"step {step} was the {_nth(self._in_a_row)} in a row whose {reason} is {number}; "
                f"none of them has changed a weight.\n{self._file.path} has their samples: look "
                f"at these, or try {REMEDY}"
            )
        rank_zero_info(
            f"step {step}: the {reason} is {number}, so it changes no weight; "
            f"{self._file.path} has its samples"
        )

    def _check_weights(self, step: int) -> None:
        """Go back if a weight is not finite; every process has to call this at the same step."""
        name = first_not_finite(self._module.named_parameters())
        if name is None:
            return
        self._file.add(step, f"parameter {name}", "stopped" if self._breaking_off else "rewound")
        found = f"weight {name} is not finite (NaN or infinity) at step {step}"
        if self._breaking_off:
            raise NotFinite(f"{found}: nothing is saved of it")
        raise Rewind(found, progress=self._saved, limit=self.max_rewinds)


@torch.no_grad()
def first_not_finite(parameters: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of the first parameter with NaN or infinity, on whichever process; None without one.

    It waits for the device once, and for the other processes.
    """
    names, flags = [], []
    for name, parameter in parameters:
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        names.append(name)
        flags.append(local.isfinite().all())
    if not flags:
        return None
    bad = torch.stack(flags).logical_not()
    places = torch.arange(len(names), device=bad.device)
    first = places.where(bad, len(names)).min()
    if dist.is_initialized():
        dist.all_reduce(first, dist.ReduceOp.MIN)
    index = int(first)
    return names[index] if index < len(names) else None


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else endings.get(number % 10, 'th')}"
