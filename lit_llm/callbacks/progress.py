"""What a run shows while it works: one line that moves, or a few that stay."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from lit_llm.callbacks.throughput import Throughput
from lit_llm.callbacks.units import clock, short

REFRESH_SECONDS = 0.2
LINE_SECONDS = 30.0
LOSSES = {"train/loss": "loss", "val/loss": "val"}


class Progress(ProgressBar):
    """The progress of fit, validate, test and predict, in place of the Trainer's own bar.

    On a terminal one line shows step, loss, validation loss, tokens per second, learning rate
    and the time left, and is drawn at most five times a second. Elsewhere (a log file, CI) a plain
    line is printed at every tenth of the run, and when 30 seconds have passed without one. Metrics
    are read after log steps only: reading one waits for the device.

    Args:
        name: what the line begins with; null takes the last part of the run folder's name
        console: where to draw; null is standard error, so that output can be piped
    """

    def __init__(self, name: str | None = None, console: Console | None = None) -> None:
        super().__init__()
        self.name = name
        self.console = console or Console(stderr=True)
        self._enabled = True
        self._bar: Bar | None = None
        self._drawn = self._printed = 0.0
        self._printed_tenth = 0
        self._metrics: dict[str, float] = {}
        self._stale = False
        self._seen_step = self._printed_step = 0
        self._clock: tuple[int, float] | None = None

    def enable(self) -> None:
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Asked by `LightningModule.print`."""
        return self._enabled

    def disable(self) -> None:
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the moving line."""
        if self._enabled:
            self.console.print(*args, markup=False, highlight=False, soft_wrap=True, **kwargs)

    # -- training ------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen_step = self._printed_step = trainer.global_step
        self._clock = None
        self._printed, self._printed_tenth = monotonic(), self._tenth(trainer)
        name = self.name or Path(trainer.default_root_dir).name or "fit"
        self._open(name, trainer.max_steps if trainer.max_steps > 0 else None)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._stale:  # the step before was logged: its metrics are complete only now
            self._read(trainer)
            self._print_line_if_due(trainer)

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
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._stale = bool(every) and step % every == 0
        now = monotonic()
        if self._clock is None:  # the first step pays for compilation: no measure of the others
            self._clock = (step, now)
        if self._bar is not None:
            if now - self._drawn >= REFRESH_SECONDS:
                self._draw(step, self._status(trainer))
        elif not self._stale:
            self._print_line_if_due(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._enabled:
            return
        self._read(trainer)
        if self._bar is not None:
            self._draw(trainer.global_step, self._status(trainer))
            self._close()
        elif self._printed_step < trainer.global_step:
            self._print_line(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    # -- validation, test, predict -------------------------------------------------------------

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_pass(trainer, "validate")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_pass(trainer, "test")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin_pass(trainer, "predict")

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._advance_pass(trainer)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            if not trainer.sanity_checking:
                self._read(trainer)
            if self._bar is not None:
                self._draw(trainer.global_step, self._status(trainer))
        else:
            self._end_pass(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_pass(trainer)

    on_predict_end = on_test_end

    def _begin_pass(self, trainer: L.Trainer, name: str) -> None:
        self._pass_done, self._pass_total = 0, _batches(trainer)
        if trainer.state.fn != "fit":
            self._printed, self._printed_tenth = monotonic(), 0
            self._open(self.name or name, self._pass_total)

    def _advance_pass(self, trainer: L.Trainer) -> None:
        self._pass_done += 1
        now = monotonic()
        if self._bar is not None and now - self._drawn >= REFRESH_SECONDS:
            of = f"{self._pass_done}/{self._pass_total or '?'}"
            if trainer.state.fn == "fit":
                self._draw(trainer.global_step, f"validating {of}")
            else:
                self._draw(self._pass_done, "")
        elif self._bar is None and self._enabled and trainer.state.fn != "fit":
            tenth = 10 * self._pass_done // self._pass_total if self._pass_total else 0
            if tenth > self._printed_tenth or now - self._printed >= LINE_SECONDS:
                self._printed, self._printed_tenth = now, tenth
                self.print(f"{self._name}  {self._pass_done}/{self._pass_total or '?'}")

    def _end_pass(self, trainer: L.Trainer) -> None:
        if self._bar is not None:
            self._draw(self._pass_done, "")
        self._close()

    # -- drawing -------------------------------------------------------------------------------

    def _open(self, name: str, total: int | None) -> None:
        self._name, self._total = name, total
        if self._enabled and self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                _Count(),
                _Status(),
            )
            # No thread of its own: it would draw while a step runs.
            self._bar = Bar(*columns, console=self.console, auto_refresh=False)
            self._task = self._bar.add_task(name, total=total, status="")
            self._bar.start()

    def _draw(self, done: int, status: str) -> None:
        assert self._bar is not None
        self._drawn = monotonic()
        self._bar.update(self._task, completed=done, status=status, refresh=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _tenth(self, trainer: L.Trainer) -> int:
        """Whole tenths of the run that are done."""
        return 10 * trainer.global_step // trainer.max_steps if trainer.max_steps > 0 else 0

    def _print_line_if_due(self, trainer: L.Trainer) -> None:
        if not self._enabled or self._bar is not None:
            return
        a_tenth = self._tenth(trainer) > self._printed_tenth
        if a_tenth or monotonic() - self._printed >= LINE_SECONDS:
            self._print_line(trainer)

    def _print_line(self, trainer: L.Trainer) -> None:
        self._printed, self._printed_tenth = monotonic(), self._tenth(trainer)
        self._printed_step = trainer.global_step
        of = f"/{self._total}" if self._total else ""
        status = self._status(trainer)
        self.print(f"{self._name}  {trainer.global_step}{of}" + (f"  {status}" if status else ""))

    def _read(self, trainer: L.Trainer) -> None:
        self._stale = False
        if self._enabled:
            metrics = trainer.callback_metrics
            self._metrics = {name: float(metrics[name]) for name in LOSSES if name in metrics}

    def _status(self, trainer: L.Trainer) -> str:
        parts = [f"{LOSSES[name]} {loss:.3f}" for name, loss in self._metrics.items()]
        speeds = [c.tokens_per_second for c in trainer.callbacks if isinstance(c, Throughput)]  # type: ignore[attr-defined]
        if speeds and speeds[0] is not None:
            parts.append(f"{short(speeds[0])} tok/s")
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        parts.append(f"lr {max(rates):.1e}")
        if (left := self._seconds_left(trainer.global_step)) is not None:
            parts.append(f"{clock(left)} left")
        return "  ".join(parts)

    def _seconds_left(self, step: int) -> float | None:
        """By the pace of this session so far, its validations included."""
        if self._total is None or self._clock is None or step <= self._clock[0]:
            return None
        done, since = self._clock
        return (monotonic() - since) / (step - done) * max(0, self._total - step)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{int(task.total)}"
        return Text(f"{int(task.completed)}{total}")


class _Status(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["status"], overflow="ellipsis", no_wrap=True)


def _batches(trainer: L.Trainer) -> int | None:
    """Batches of the pass that begins; None if its loader does not know."""
    if trainer.testing:
        counts = trainer.num_test_batches
    elif trainer.predicting:
        counts = trainer.num_predict_batches
    else:
        checking = trainer.sanity_checking
        counts = trainer.num_sanity_val_batches if checking else trainer.num_val_batches
    total = sum(counts)
    return None if total == float("inf") else int(total)
