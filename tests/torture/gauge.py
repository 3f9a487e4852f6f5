"""A callback that writes down what a process holds after each step, for the soak."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L


class Gauge(L.Callback):
    """Appends "step,resident bytes,open files,bytes on the disk" to gauge.csv of the run.

    It comes before Checkpoint, so a line says what the save of the step before has left.

    Args:
        pause: seconds to wait then, as a run of that many between its saves would take
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        run = Path(trainer.default_root_dir)
        disk = sum(
            path.stat().st_size for folder in run.glob("step-*") for path in folder.rglob("*")
        )
        with (run / "gauge.csv").open("a") as file:
            print(trainer.global_step, _resident(), _open_files(), disk, sep=",", file=file)
        time.sleep(self.pause)


def _resident() -> int:
    """Bytes of memory in use; where /proc is missing, the most there ever were."""
    if Path("/proc/self/statm").exists():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _open_files() -> int:
    folder = "/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"
    return len(os.listdir(folder))
