"""How fast a run reads its data: tokens per second, and the share of what the device could do.

The device is waited for on log steps only, and where training pauses for something else. Waiting
on every step would hide the gaps that the measurement is meant to show: `ThroughputMonitor` of
Lightning does so.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import lightning as L
import torch

from lit_llm.callbacks.csv_log import CSVLog
from lit_llm.callbacks.peak_memory import peak_memory
from lit_llm.callbacks.tensorboard_log import TensorBoardLog
from lit_llm.callbacks.units import clock, short, teraflops
from lit_llm.model.size import flops_per_token
from lit_llm.planning.peak_flops import device_name, measured_cpu_flops, peak_bf16_flops


class Throughput(L.Callback):
    """The clock of a run: writes how far it is and how fast, next to the losses.

    On log steps, to every logger:

    - `tokens`: seen since step 0, padding included, by all devices together; the devices of a
      tensor-parallel group see the same ones, which count once
    - `seconds`: spent on training since step 0, in all sessions of the run; neither validation
      nor samples nor checkpoints count
    - `speed/tokens_per_second`: of all devices together, since the last log step
    - `speed/tflops`: 1e12 operations of the model per second and device, those of a
      tensor-parallel group each counted
    - `speed/mfu`: the same as a share of the device's peak (Chowdhery et al., 2022,
      arXiv:2204.02311): by the data sheet in bfloat16, or, on a CPU, as measured in the precision
      of the run at its first log step. Left out where no peak is known.
    - `speed/peak_memory_gb`: 1e9 bytes that this process held at most (`peak_memory`); the loggers
      hear rank 0 only

    At the end of training one line says what the session has done. The first step of a session
    pays for compilation and warm-up: it counts in `seconds` but in no speed.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.tokens_per_second: float | None = None
        """The latest measurement, over all devices."""
        self._running_since: float | None = None
        self._interval_seconds = 0.0
        self._interval_start: int | None = None
        self._seen_step = 0
        self._session_start: tuple[int, float] | None = None
        """Step and seconds at the start of the session."""
        self._first_end: tuple[int, float] | None = None
        """Step and seconds at the end of its first step."""
        self._peak_flops: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._device = pl_module.device
        self._tokens_per_step: int = data.nominal_tokens_per_step
        lora = getattr(pl_module, "lora", None)
        self._flops_per_token = flops_per_token(pl_module.gpt.config, data.seq_len, lora)  # type: ignore[union-attr, arg-type]
        self._peak_flops = peak_bf16_flops(device_name(self._device))
        self._interval_start, self._seen_step = None, trainer.global_step
        self._session_start, self._first_end = (trainer.global_step, self.seconds), None
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
            self._first_end = (step, self.seconds)
        elif trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.pause()
            if self._device.type == "cpu" and self._peak_flops is None:
                self._measure_cpu(trainer, pl_module)
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

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._first_end is not None:
            pl_module.print(self._totals(trainer.global_step, trainer.world_size))

    def state_dict(self) -> dict[str, Any]:
        self.pause()  # asked for when a checkpoint is written, before on_save_checkpoint
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def _restart_interval(self, step: int) -> None:
        self.pause()
        self._interval_start, self._interval_seconds = step, 0.0
        self._running_since = perf_counter()

    def _measure_cpu(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the peak of this process: where several share a CPU, all of them measure at once."""
        dtype = matmul_dtype(trainer)
        trainer.strategy.barrier("measure the CPU")
        self._peak_flops = measured_cpu_flops(dtype)
        each = " for each process" if trainer.world_size > 1 else ""
        pl_module.print(
            f"this CPU's matmul peak: {teraflops(self._peak_flops)} TFLOP/s in "
            f"{str(dtype).removeprefix('torch.')}{each} (measured)"
        )

    def _speed(self, steps: int, devices: int) -> dict[str, float]:
        self.tokens_per_second = steps * self._tokens_per_step / self._interval_seconds
        flops = self._flops_per_token * self.tokens_per_second / devices
        speed = {"speed/tokens_per_second": self.tokens_per_second, "speed/tflops": flops / 1e12}
        if self._peak_flops is not None:
            speed["speed/mfu"] = flops / self._peak_flops
        if (memory := peak_memory(self._device)) is not None:
            speed["speed/peak_memory_gb"] = memory / 1e9
        return speed

    def _totals(self, step: int, devices: int) -> str:
        """What this session has done, and the run if it has earlier ones, in one line."""
        assert self._session_start is not None
        assert self._first_end is not None
        (start, seconds_before), (first, seconds_first) = self._session_start, self._first_end
        line = f"trained {self._amount(step - start, self.seconds - seconds_before)}"
        if start:
            line += f" ({self._amount(step, self.seconds)} since step 0)"
        parts = []
        if step > first:
            speed = (step - first) * self._tokens_per_step / (self.seconds - seconds_first)
            parts.append(f"{short(speed)} tok/s" + (f" on {devices} devices" * (devices > 1)))
            if self._peak_flops is not None:
                mfu = self._flops_per_token * speed / devices / self._peak_flops
                whose = "this CPU's measured" if self._device.type == "cpu" else "the device's"
                parts.append(f"MFU {mfu:.1%} of {whose} {teraflops(self._peak_flops)} TFLOP/s")
        if (memory := peak_memory(self._device)) is not None:
            parts.append(f"peak memory {memory / 1e9:.3g} GB")
        return line + (f": {', '.join(parts)}" if parts else "")

    def _amount(self, steps: int, seconds: float) -> str:
        tokens = short(steps * self._tokens_per_step)
        return f"{steps:,} step{'s' * (steps != 1)}, {tokens} tokens in {clock(seconds)}"

    def _write(self, trainer: L.Trainer, speed: dict[str, float]) -> None:
        tokens = trainer.global_step * self._tokens_per_step
        for logger in trainer.loggers:
            logger.log_metrics(
                {"tokens": tokens, "seconds": self.seconds, **speed}, step=trainer.global_step
            )


def matmul_dtype(trainer: L.Trainer) -> torch.dtype:
    """What the matmuls of a run compute in."""
    sharded_in: torch.dtype | None = getattr(trainer.strategy, "param_dtype", None)
    if sharded_in is not None:
        return sharded_in
    by_precision = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
    return by_precision.get(str(trainer.precision).split("-")[0], torch.float32)
