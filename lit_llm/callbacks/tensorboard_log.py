"""TensorBoard's files in the run folder, one curve however often the run was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class TensorBoardLog(TensorBoardLogger):
    """Writes to `tensorboard/` in the run folder; see it with `tensorboard --logdir checkpoints`.

    Lightning's own logger shows the steps between the last checkpoint and a crash twice, and
    writes the configuration once more as hparams.yaml. Needs the callback `Throughput`, which says
    where a run begins.

    Args:
        save_dir: the run folder
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="tensorboard", default_hp_metric=False)
        self._begun = False

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
        if self._begun:  # else it is validate or test: one point is no curve
            super().log_metrics(dict(metrics), step)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder's config.yaml has them."""

    @rank_zero_only
    def save(self) -> None:
        if self._experiment is not None:
            self._experiment.flush()
