"""Callbacks that make a training process hang, each in another way, and leave a note."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import lightning as L
import torch

from lit_llm.data.loader import OrderedRows


class Hang(L.Callback):
    """Begins at a step, on the last rank.

    Args:
        note: file that is written when it hangs
        step: optimizer steps before it
    """

    def __init__(self, note: str, step: int = 3) -> None:
        self.note = Path(note)
        self.step = step

    def hangs(self, trainer: L.Trainer) -> bool:
        if trainer.global_step < self.step or trainer.global_rank != trainer.world_size - 1:
            return False
        take_note(self.note)
        return True


class Asleep(Hang):
    """Sleeps for an hour."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.hangs(trainer):
            asleep()


class HoldsLock(Hang):
    """Computes for years without ever releasing the interpreter's lock."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self.hangs(trainer):
            holds_lock()


class BlockedSave(Hang):
    """Writes into a pipe that nobody reads, in the middle of a save."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        if self.hangs(trainer):
            blocked_write()


class StuckWorker(Hang):
    """Sleeps in a worker of the loader."""

    def on_fit_start(self, trainer, pl_module) -> None:
        if trainer.global_rank != trainer.world_size - 1:
            return
        get, note, batch = OrderedRows.__getitems__, self.note, trainer.datamodule.global_batch_size
        first = self.step * batch

        def stuck_worker(rows, positions):
            if positions[-1] >= first and torch.utils.data.get_worker_info() is not None:
                take_note(note)
                asleep()
            return get(rows, positions)

        OrderedRows.__getitems__ = stuck_worker


class Slow(L.Callback):
    """Gives a test time to act between two steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        time.sleep(self.seconds)

    on_validation_batch_start = on_train_batch_start


def take_note(note: Path) -> None:
    if not note.exists():  # the signal for the stacks may end a system call, and so the first hang
        note.write_text(str(os.getpid()))


def asleep() -> None:
    time.sleep(3600)


def holds_lock() -> None:
    re.fullmatch("(a+)+", "a" * 60 + "b")


def blocked_write() -> None:
    reader, writer = os.pipe()
    os.write(writer, bytes(1 << 24))
    os.close(reader)
