"""A callback that works behind each optimizer step, whatever a step accumulates."""

from __future__ import annotations

from typing import Any

import lightning as L


class EachStep(L.Callback):
    """Subclasses say in `on_step` what they do."""

    def on_step(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise NotImplementedError

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.on_step(trainer, pl_module)
