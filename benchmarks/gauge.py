"""A callback that writes down, at each step, what a run holds: memory, open files, time."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L


class Gauge(L.Callback):
    """Appends `step, seconds, resident bytes, open files` to a file; Linux only, for its /proc.

    Args:
        path: the file
    """

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("w", buffering=1)  # noqa: SIM115 - as long as the run

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        opened = len(os.listdir("/proc/self/fd"))
        self._file.write(f"{trainer.global_step},{perf_counter()},{resident},{opened}\n")
