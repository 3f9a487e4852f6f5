"""A signal stops a run after a step, and that step is saved."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_llm.callbacks.checkpointing import Checkpoint
from lit_llm.training.guards import Rewind

NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")  # Windows has no SIGUSR1
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Stopped(SIGTERMException):
    """A signal has stopped the run, on all processes after the same step.

    Args:
        signum: the signal
        step: the last finished optimizer step
        checkpoint: folder that holds this step; None if there was nothing to save
        unsound: why this step could not be saved, and `checkpoint` is the newest before it
    """

    def __init__(
        self, signum: int, step: int, checkpoint: Path | None, unsound: str | None = None
    ) -> None:
        super().__init__(f"{signal.Signals(signum).name} stopped the run after step {step}")
        self.signum = signum
        self.step = step
        self.checkpoint = checkpoint
        self.unsound = unsound


class Signals(L.Callback):
    """Stops a run on SIGTERM, Ctrl-C (SIGINT) and SIGUSR1, after the step or validation batch.

    The handler only takes a note, so nothing is torn: what is under way, a save too, comes to its
    end. A process tells the others after a step whether it got a signal, over the CPU and without
    waiting; the answer is read after the next step, and so all stop after the same one. A
    second Ctrl-C ends the process at once. A signal that comes when the last step is done lets
    the run end.

    (Lightning broadcasts inside the handler, amid whatever else is under way, which hung one job
    in three; and again before every micro-batch, which is 0.9 ms on two gloo processes. Ctrl-C
    saves nothing there, and in SLURM SIGUSR1 saves another kind of checkpoint.)

    Args:
        enabled: false leaves signals to Lightning

    Raises:
        Stopped: a signal came; the last finished step is saved.
    """

    _left_over = 0
    """A signal that came while the run was about to go back: for the attempt that follows."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._received = self._agreed = 0  # numbers of signals: here, and on any process
        self._group: dist.ProcessGroup | None = None
        self._asked: tuple[dist.Work, Tensor] | None = None
        self._val_batches = 0  # still to come in this validation, on every process

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._received = self._agreed = 0
        self._group = self._asked = None
        if self.enabled and stage == "fit":
            self._received, Signals._left_over = Signals._left_over, 0
            trainer._signal_connector = _Handlers(self, trainer)  # type: ignore[assignment]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.enabled:
            return
        if trainer.world_size > 1:
            timeout = getattr(trainer.strategy, "_timeout", None)
            self._group = dist.new_group(backend="gloo", timeout=timeout)
            loop = trainer.fit_loop.epoch_loop
            loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._ask()
        self._ask()  # the second reads the answer to the first: one may have come before this
        if self._agreed:
            self.stop(trainer)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.enabled and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._ask()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._group is not None:  # a loader of the user's may be longer on one process
            fewest = torch.tensor([float(sum(trainer.num_val_batches))])
            dist.all_reduce(fewest, dist.ReduceOp.MIN, self._group)
            self._val_batches = int(fewest) if fewest.isfinite() else 0

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._group is not None:
            self._val_batches -= 1
        if self.enabled and self._val_batches >= 0:
            self._ask()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._asked is not None:
            self._asked[0].wait()
            self._asked = None

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, Rewind):
            Signals._left_over = self._received

    def _ask(self) -> None:
        """Read what the processes said the last time, and tell the others what came since."""
        if self._group is None:
            self._agreed = self._received
            return
        if self._asked is not None:
            answer, largest = self._asked
            answer.wait()
            self._agreed = int(largest)
        mine = torch.tensor([self._received])
        work = dist.all_reduce(mine, dist.ReduceOp.MAX, self._group, async_op=True)
        assert work is not None
        self._asked = work, mine

    def stop(self, trainer: L.Trainer) -> NoReturn:
        """Save the last finished step, on every process, and end training.

        Where a guard finds that the run has to go back, it ends as well: whoever starts it again
        has it go on from the newest checkpoint.
        """
        saved = unsound = None
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoint):
                try:
                    saved = callback.save_now(trainer)
                except Rewind as rewind:
                    saved, unsound = callback.newest(), str(rewind)
        raise Stopped(self._agreed, trainer.global_step, saved, unsound)

    def receive(self, signum: int, _: Any) -> None:
        """Take a note: this may interrupt anything, at any line."""
        self._received = self._received or signum
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next one, wherever this process is
            if "LOCAL_RANK" not in os.environ or os.environ["LOCAL_RANK"] == "0":
                again = b"\nSIGINT: the run stops after this step; Ctrl-C again ends it at once\n"
                os.write(2, again)


class _Handlers:
    """Has the place of Lightning's own handling of signals during a fit."""

    def __init__(self, signals: Signals, trainer: L.Trainer) -> None:
        self._signals = signals
        self._trainer = trainer
        self._lightnings = trainer._signal_connector
        self._before: dict[int, Any] = {}

    def register_signal_handlers(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._signals.receive) for s in SIGNALS}

    @property
    def received_sigterm(self) -> bool:
        """Asked by Lightning wherever a run can stop: a step or a validation batch is over."""
        trainer = self._trainer
        done = trainer.fit_loop.epoch_loop._is_training_done and not trainer.validating
        if self._signals._agreed and not done:
            self._signals.stop(trainer)
        return False

    def teardown(self) -> None:
        self._trainer._signal_connector = self._lightnings
        if self._signals._agreed:
            return  # whoever sent one signal may send another while the process ends
        for signum, handler in self._before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
