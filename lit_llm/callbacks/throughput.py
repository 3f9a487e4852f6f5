"""How fast a run reads its data: tokens per second, and the share of what the device could do.

The device is waited for on log steps only. Waiting on every step would hide the gaps that the
measurement is meant to show: `ThroughputMonitor` of Lightning does so.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import lightning as L
import torch

from lit_llm.callbacks.csv_log import CSVLog
from lit_llm.callbacks.peak_flops import device_name, peak_bf16_flops
from lit_llm.callbacks.tensorboard_log import TensorBoardLog
from lit_llm.model.size import flops_per_token


class Throughput(L.Callback):
    """The clock of a run: writes how far it is and how fast, next to the losses.

    On log steps, to every logger:

    - `tokens`: seen since step 0, over all devices, padding included
    - `seconds`: spent on training since step 0, in all sessions of the run; neither validation
      nor samples nor checkpoints count
    - `speed/tokens_per_second`: over all devices, since the last log step
    - `speed/tflops`: 1e12 operations of the model per second and device
    - `speed/mfu`: the same as a share of the device's bfloat16 peak (Chowdhery et al., 2022,
      arXiv:2204.02311). Left out where the peak is not known, and on CPUs: theirs depends on
      what else the machine does.

    The first step of a session pays for compilation and warm-up: it counts in `seconds` but in
    no speed.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens_per_second: float | None = None
        """The latest measurement, over all devices."""
        self._running_since: float | None = None
        self._interval_seconds = 0.0
        self._interval_start: int | None = None
        self._seen_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._device = pl_module.device
        self._tokens_per_step: int = data.nominal_tokens_per_step
        self._flops_per_token = flops_per_token(pl_module.gpt.config, data.seq_len)  # type: ignore[union-attr, arg-type]
        self._peak_flops = peak_bf16_flops(device_name(self._device))
        self._interval_start, self._seen_step = None, trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, CSVLog | TensorBoardLog):
                logger.begin(trainer.global_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._running_since is None:
            self._running_since = perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self._seen_step:  # a micro-batch that did not end a step
            return
        self._seen_step = step
        if self._interval_start is None:
            self._restart_interval(step)
        elif trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.pause()
            self._write(trainer, self._speed(step - self._interval_start, trainer.world_size))
            self._restart_interval(step)

    def pause(self) -> None:
        """Stop the clock until the next batch: what follows is no training."""
        if self._running_since is None:
            return
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        elapsed = perf_counter() - self._running_since
        self._running_since = None
        self.seconds += elapsed
        self._interval_seconds += elapsed

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pause()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, {})

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.pause()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pause()

    def state_dict(self) -> dict[str, Any]:
        self.pause()  # asked for when a checkpoint is written, before on_save_checkpoint
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def _restart_interval(self, step: int) -> None:
        self.pause()
        self._interval_start, self._interval_seconds = step, 0.0
        self._running_since = perf_counter()

    def _speed(self, steps: int, devices: int) -> dict[str, float]:
        self.tokens_per_second = steps * self._tokens_per_step / self._interval_seconds
        flops = self._flops_per_token * self.tokens_per_second / devices
        speed = {"speed/tokens_per_second": self.tokens_per_second, "speed/tflops": flops / 1e12}
        if self._peak_flops is not None:
            speed["speed/mfu"] = flops / self._peak_flops
        return speed

    def _write(self, trainer: L.Trainer, speed: dict[str, float]) -> None:
        tokens = trainer.global_step * self._tokens_per_step
        for logger in trainer.loggers:
            logger.log_metrics(
                {"tokens": tokens, "seconds": self.seconds, **speed}, step=trainer.global_step
            )
