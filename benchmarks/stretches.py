"""How long stretches of steps take, and the most memory that was held until then."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter

import lightning as L
import torch

from benchmarks.each_step import EachStep
from lit_llm.callbacks.peak_memory import peak_memory
from lit_llm.callbacks.throughput import matmul_dtype


class Stretches(EachStep):
    """Times equal stretches of steps, and waits for the device at their borders only.

    With `--trainer.fast_dev_run N` a run writes no checkpoint, log or report, and the result is
    all that is left of it.

    Args:
        path: JSON file for the result
        warmup: steps that do not count; compilation and the allocator settle in them
        steps: of a stretch
        stretches: how many follow each other
    """

    def __init__(self, path: str, warmup: int = 20, steps: int = 10, stretches: int = 3) -> None:
        self.path = path
        self.warmup = warmup
        self.steps = steps
        self.stretches = stretches
        self._borders: list[float] = []
        self._first_step = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = perf_counter()

    def on_step(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if step == 1:
            wait(pl_module.device)
            self._first_step = perf_counter() - self._began
        after, rest = divmod(step - self.warmup, self.steps)
        if not rest and 0 <= after <= self.stretches:
            wait(pl_module.device)
            self._borders.append(perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        tokens = self.steps * trainer.datamodule.nominal_tokens_per_step  # type: ignore[attr-defined]
        seconds = [b - a for a, b in zip(self._borders, self._borders[1:], strict=False)]
        result = {
            "tokens_per_second": [tokens / s for s in seconds],
            "first_step_seconds": self._first_step,
            "peak_memory": peak_memory(pl_module.device),
            "precision": str(trainer.precision),
            "dtype": str(matmul_dtype(trainer)).removeprefix("torch."),
        }
        if trainer.is_global_zero:
            Path(self.path).write_text(json.dumps(result))


def wait(device: torch.device) -> None:
    """Let the device finish what it has been given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
