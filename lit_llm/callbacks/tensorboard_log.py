"""TensorBoard's files in the run folder, one curve however often the run was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

FLUSH_SECONDS = 2
"""After which what was logged can be seen at the latest."""


class TensorBoardLog(TensorBoardLogger):
    """Writes to `tensorboard/` in the run folder; see it with `tensorboard --logdir checkpoints`.

    Lightning's own logger shows the steps between the last checkpoint and a crash twice, and
    writes the configuration once more as hparams.yaml. Needs the callback `Throughput`, which says
    where a run begins.

    Args:
        save_dir: the run folder
    """

    def __init__(self, save_dir: str) -> None:
        options: dict[str, Any] = {"default_hp_metric": False, "flush_secs": FLUSH_SECONDS}
        super().__init__(save_dir, name="", version="tensorboard", **options)
        self._begun = False
        self._step = 0
        self._pending: dict[str, float] = {}
        self._has_to_stay = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """TensorBoard's writer; the Trainer asks before `begin`, when it must not open a file."""
        return super().experiment if self._begun else DummyExperiment()

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Prepare for the steps after `step`: TensorBoard hides older points of later steps."""
        self._begun = True
        self._kwargs["purge_step"] = step + 1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Collect metrics of one step; `save` writes them."""
        if not self._begun:  # validate or test: one point is no curve
            return
        assert step is not None, "a point needs its step"
        if step != self._step:
            self.save()
        self._step = step
        self._pending.update(metrics)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder's config.yaml has them."""

    @rank_zero_only
    def save(self) -> None:
        """Give what was logged to the thread that writes; Lightning calls this on each log step.

        All of a step at once, and not waited for: a record for each metric and a flush behind them
        cost 3 ms, most of it for changing between the threads. Only behind a checkpoint it waits:
        a run that is killed goes on from there, and does not log again what came before.
        """
        if not self._pending:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=k, simple_value=float(v)) for k, v in self._pending.items()]
        self._pending = {}
        self.experiment._get_file_writer().add_summary(Summary(value=values), self._step)
        if self._has_to_stay:
            self._flush()

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Keep what was logged up to the checkpoint's step, which may log after its save."""
        self._flush()
        self._has_to_stay = True

    def _flush(self) -> None:
        self._has_to_stay = False
        if self._experiment is not None:
            self._experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
        super().finalize(status)
