"""A run that hangs ends, and says where it hung."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_llm.callbacks import watcher
from lit_llm.data.follow import DUMP_SIGNAL, dump_stacks_on_signal

# What a terminal or a cluster sends to a whole group: the watcher outlives it with the run.
_BLOCKED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTOU", "SIGPIPE")


class Watchdog(L.Callback):
    """Ends a run in which a process makes no progress, with the stacks of all its threads.

    Progress is a micro-batch, a validation batch, the beginning of a save, the end of a
    validation. Each training process has a small one beside it, `watcher.py`, which hears of each
    progress through a pipe, and acts when it has heard nothing for too long: a rank that sleeps or
    waits for another, a worker of the loader that is stuck, a save that is blocked, a process that
    was stopped. Ctrl-Z stops both: it does not count. Processes that wait for one that hangs give
    up after the strategy's own timeout, if that is shorter.

    Args:
        timeout_minutes: longest time without progress; null turns the watchdog off. A step, and
            a save, must be shorter, the compilation in the first step included.
    """

    def __init__(self, timeout_minutes: float | None = 30) -> None:
        if timeout_minutes is not None and not timeout_minutes > 0:
            raise ValueError(
                f"timeout_minutes={timeout_minutes} would end every run: give more than 0, "
                "or null to turn the watchdog off"
            )
        self.timeout_minutes = timeout_minutes
        self._watcher: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Before the loaders start their workers, which inherit it.
        if self.timeout_minutes is not None and stage == "fit":
            dump_stacks_on_signal()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.timeout_minutes is None:
            return
        if DUMP_SIGNAL is None:
            rank_zero_info("no watchdog: Windows lacks the signals that it needs")
            return
        arguments = [os.getpid(), 60 * self.timeout_minutes, trainer.global_rank, DUMP_SIGNAL]
        # Python's -I -S: neither the environment nor the site can slow it down or break it.
        command = [sys.executable, "-I", "-S", watcher.__file__, *map(str, arguments)]
        # A process inherits what is blocked when it is started: there is no moment without.
        blocked = {getattr(signal, name) for name in _BLOCKED}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            self._watcher = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/"
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._watcher.stdin is not None
        self._pipe = self._watcher.stdin.fileno()
        os.set_blocking(self._pipe, False)

    def _beat(self, *_: Any, **__: Any) -> None:
        if self._pipe is None:
            return
        try:
            os.write(self._pipe, b".")
        except BlockingIOError:  # it has not been read for 65,536 beats: there is enough in it
            pass
        except BrokenPipeError:
            rank_zero_warn("the watchdog's process is gone: this run goes on without it")
            self._stop()

    on_train_batch_end = on_validation_batch_end = on_validation_end = _beat
    on_save_checkpoint = on_train_end = _beat

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Watch over what is still to come: other callbacks save, and processes are left.

        No hook comes after that, so the end of it is that of the Trainer's own clearing up.
        """
        self._beat()
        clear_up = trainer._teardown

        def clear_up_and_stop() -> None:
            try:
                clear_up()
            finally:
                trainer._teardown = clear_up  # type: ignore[method-assign]
                self._stop()

        trainer._teardown = clear_up_and_stop  # type: ignore[method-assign]

    def _stop(self) -> None:
        if self._watcher is None:
            return
        assert self._watcher.stdin is not None
        self._watcher.kill()  # it holds nothing that could be lost
        self._watcher.stdin.close()
        self._watcher.wait()
        self._watcher = self._pipe = None
        if DUMP_SIGNAL is not None:
            faulthandler.unregister(DUMP_SIGNAL)
