"""When a run saves itself, under which name, and which of its checkpoints stay."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.optim import Optimizer

from lit_llm.callbacks.nan_guard import NotFinite
from lit_llm.checkpoint.manifest import MANIFEST
from lit_llm.training.guards import NotSaved, Rewind
from lit_llm.training.space import check_space
from lit_llm.training.strategy import Sharded


class Checkpoint(ModelCheckpoint):
    """Saves folders named `step-00000500` into the run folder (trainer.default_root_dir).

    It saves at the times below, at the end of training, and when training breaks off (a signal,
    an error) with the weights of the last finished step. No `last` exists: the newest is
    the folder with the largest number. What the disk holds decides what is removed, so
    resuming changes nothing.

    Args:
        every_n_steps: optimizer steps between two checkpoints; null saves at each validation,
            or each 500 steps in a run without one
        keep_last: newest checkpoints that stay; null keeps all
        monitor: metric whose best checkpoint stays too, judged at each validation
        mode: whether the best is the smallest or the largest
    """

    FILE_EXTENSION = ""

    def __init__(
        self,
        every_n_steps: int | None = None,
        keep_last: int | None = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} is no distance: give 1 or more")
        if keep_last is not None and keep_last < 1:
            raise ValueError(
                f"keep_last={keep_last} would leave nothing to resume from: give 1 or more, "
                "or null to keep all"
            )
        # save_top_k=0 turns off the parent's own choice of names, times and removals.
        super().__init__(monitor=monitor, mode=mode, save_top_k=0, enable_version_counter=False)
        self.every_n_steps = every_n_steps
        self.keep_last = keep_last
        self._best_step: int | None = None
        self._best_score: float | None = None
        self._only_at_validation = False
        self._ready = False
        self._updating = False
        self._has_saved = False  # in this session

    @property
    def state_key(self) -> str:
        return "Checkpoint"  # the same whatever the settings: they may change on resume

    def state_dict(self) -> dict[str, Any]:
        return {"best_step": self._best_step, "best_score": self._best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best_step, self._best_score = state_dict["best_step"], state_dict["best_score"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir).absolute())
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_global_step_saved = trainer.global_step  # nothing new to save yet
        self._has_saved = False
        self._only_at_validation = self.every_n_steps is None and trainer.enable_validation
        if self._best_step is not None and not self._path(self._best_step).exists():
            self._best_step = self._best_score = None
        self._refuse_small_disk(trainer, pl_module)
        self._set_aside_later_checkpoints(trainer)
        self._ready = True

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer
    ) -> None:
        self._updating = True  # from now on some weights may be new and some old

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._updating = False
        if not self._only_at_validation and trainer.global_step % (self.every_n_steps or 500) == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing: an epoch has no meaning here."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        is_best = self._is_best(trainer)
        if self._only_at_validation or is_best:
            self._save(trainer, is_best)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)
        self._ready = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save the last finished step, where that is possible; the exception goes on anyway."""
        if isinstance(exception, Rewind):
            exception.saved = self._has_saved
        if not self._ready or isinstance(exception, NotFinite | Rewind):
            return
        if trainer.global_step == self._last_global_step_saved:  # no step since, or none at all
            return
        # A save needs every rank, and only a signal's end is sure to reach all at one step.
        alone = trainer.world_size == 1
        if isinstance(exception, SIGTERMException) or (alone and not self._updating):
            path = self._path(trainer.global_step)
            try:
                self._save(trainer)
            except (NotFinite, NotSaved, Rewind) as unsound:
                rank_zero_warn(f"training broke off, and {path} is not written: {unsound}")
            else:
                rank_zero_info(f"training broke off: {path} has its state")

    def save_now(self, trainer: L.Trainer) -> Path | None:
        """Save the last finished step, on every rank, unless it is saved already.

        Returns:
            Where it is; None if this session has finished no step, or saves nothing.
        """
        if not self._ready or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        self._save(trainer)
        path = self._path(trainer.global_step)
        return path if path.exists() else None

    def newest(self) -> Path | None:
        """The newest checkpoint of the run's folder, of whichever session."""
        steps = self._saved_steps()
        return self._path(steps[-1]) if steps else None

    def _save(self, trainer: L.Trainer, is_best: bool = False) -> None:
        step = trainer.global_step
        if is_best:
            assert self.monitor is not None
            self._best_step = step
            self._best_score = float(trainer.callback_metrics[self.monitor])
            self.best_model_path = str(self._path(step))
        if not self._should_skip_saving_checkpoint(trainer):
            self._ready = False  # a save that fails is not tried again by on_exception
            self._save_checkpoint(trainer, str(self._path(step)))
            self._ready = self._has_saved = True
        self._remove_older(trainer)

    def _is_best(self, trainer: L.Trainer) -> bool:
        if self.monitor is None:
            return False
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"no metric is called monitor={self.monitor!r}: give one of "
                f"{', '.join(sorted(trainer.callback_metrics))}"
            )
        score = float(trainer.callback_metrics[self.monitor])
        if self._best_score is None:
            return score == score  # NaN is never the best
        return score < self._best_score if self.mode == "min" else score > self._best_score

    def _remove_older(self, trainer: L.Trainer) -> None:
        if self.keep_last is None or not trainer.is_global_zero:
            return
        for step in self._saved_steps()[: -self.keep_last]:
            if step != self._best_step:
                trainer.strategy.remove_checkpoint(self._path(step))

    def _refuse_small_disk(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Ask before the first step whether two checkpoints fit; all processes end if not."""
        files = trainer.world_size if isinstance(trainer.strategy, Sharded) else 1
        refusal = None
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            try:
                check_space(Path(self.dirpath or ""), module, trainer.optimizers, files=files)
            except ValueError as error:
                refusal = str(error)
            except Exception as error:  # here alone: the others would wait for the answer below
                rank_zero_warn(f"whether two checkpoints fit was not to be found out: {error!r}")
        refusal = trainer.strategy.broadcast(refusal)
        if refusal is not None:
            raise ValueError(refusal)

    def _set_aside_later_checkpoints(self, trainer: L.Trainer) -> None:
        """Move what lies after the step that this session starts from out of the run's way.

        Else the run would have two futures in one folder, and resume in the wrong one.
        """
        there = self._saved_steps(complete=False)  # one that lost its manifest is in the way too
        later = [step for step in there if step > trainer.global_step]
        if later and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            folder = Path(self.dirpath or "")
            names = (folder / f"abandoned-{n}" for n in count(1))
            aside = next(name for name in names if not name.exists())
            aside.mkdir()
            for step in later:
                self._path(step).rename(aside / self._path(step).name)
            rank_zero_info(
                f"this run goes on from step {trainer.global_step}; its later checkpoints are now "
                f"in {aside}: remove them if you do not need them"
            )
        trainer.strategy.barrier("abandoned checkpoints")

    def _saved_steps(self, *, complete: bool = True) -> list[int]:
        """Steps of the checkpoints in the folder, ascending; else also of those that were one."""
        return sorted(
            int(path.name.removeprefix("step-"))
            for path in Path(self.dirpath or "").glob("step-*")
            if re.fullmatch(r"step-\d{8,}", path.name)
            and (not complete or (path / MANIFEST).is_file())
        )

    def _path(self, step: int) -> Path:
        return Path(self.dirpath or "") / f"step-{step:08d}"
