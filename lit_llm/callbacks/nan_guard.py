"""A run whose loss is no number any more stops, and saves nothing of it."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor


class NotFinite(ArithmeticError):
    """The loss or the weights hold NaN or infinity; training cannot recover from that."""


class NanGuard(L.Callback):
    """Checks the loss on log steps, and the weights before a checkpoint is written.

    One NaN in a gradient makes every weight NaN, and each loss after it: so a look now and then
    suffices, and the device is not waited for in between. All ranks stop together.

    Raises:
        NotFinite: names the step.
    """

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._check(trainer, "loss", bool(outputs["loss"].isfinite()))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check(trainer, "weights", _all_finite(pl_module.parameters()))

    def _check(self, trainer: L.Trainer, what: str, finite: bool) -> None:
        if trainer.strategy.reduce_boolean_decision(finite, all=True):
            return
        found = "loss is" if what == "loss" else "weights are"
        raise NotFinite(
            f"the {found} not finite (NaN or infinity) at step {trainer.global_step}; nothing "
            "of this step is saved.\nResume from the newest checkpoint with a lower learning "
            "rate, a longer warmup or gradient clipping"
        )


def _all_finite(parameters: Any) -> bool:
    # One number per parameter, then one wait for the device.
    local = [p.to_local() if hasattr(p, "to_local") else p for p in parameters]
    flags: list[Tensor] = [p.detach().isfinite().all() for p in local]
    return bool(torch.stack(flags).all()) if flags else True
