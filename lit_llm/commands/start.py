"""From which checkpoint a command starts, and what it takes from it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lit_llm.checkpoint.bundle import lineage, read_meta
from lit_llm.checkpoint.find import LAST, asked_by, checkpoints, choose, resolve, runs_below
from lit_llm.checkpoint.folder import clean_leftovers, temporary_beside
from lit_llm.commands.compose import Configuration, merge
from lit_llm.commands.parser import flag_value
from lit_llm.commands.processes import is_first_process, say

NOT_FOR_VALIDATION = (
    *("logger", "callbacks", "profiler", "max_steps", "overfit_batches"),
    *("devices", "num_nodes"),
)
"""Keys of a run's trainer that say how and on how many devices it trained, and nothing else."""


def adopt_checkpoint(configuration: Configuration, flags: list[str]) -> None:
    """Let `model.init_from` supply the network's sizes, beneath whatever the user gave.

    A size that the user gives all the same stays, and then the weights do not fit: an error that
    names the first that does not.
    """
    init_from = flag_value(flags, "model.init_from")
    model = configuration.values.get("model") or {}
    if not isinstance(model, dict):
        raise ValueError(f"{configuration.origin['model']}: model holds keys, got {model!r}")
    init_from = init_from or model.get("init_from")
    if init_from in (None, "null"):
        return
    with asked_by("--model.init_from"):
        folder = resolve(init_from)
    network = read_meta(folder)["model"]
    for linked in ("vocab_size", "max_seq_len"):
        network.pop(linked)
    configuration.values = merge({"model": {"gpt": network}}, configuration.values)
    flags += ["--model.init_from", str(folder)]


def adopt_run(configuration: Configuration, flags: list[str]) -> None:
    """Let the checkpoint that is to be validated supply its run's configuration.

    It goes beneath whatever the user gave, so `validate --ckpt_path X` needs nothing else, and
    other data, devices or limits are a flag or a file away.

    Raises:
        ValueError: "last" is asked for without a run whose last it is; no such checkpoint.
    """
    which = flag_value(flags, "ckpt_path") or configuration.values.get("ckpt_path")
    if which is None:
        return
    if which == LAST:
        if "run" not in configuration.values and flag_value(flags, "run") is None:
            raise ValueError(
                "--ckpt_path last: of which run? Give the path of the run, such as "
                "--ckpt_path checkpoints/quickstart/pretrain, or its recipe with -c"
            )
        return
    with asked_by("--ckpt_path"):
        folder = resolve(which)
    config: dict[str, Any] = read_meta(folder)["config"]
    trainer = {
        key: value
        for key, value in (config.get("trainer") or {}).items()
        if key not in NOT_FOR_VALIDATION
    }
    model = dict(config.get("model") or {})
    if model.get("init_from"):
        model["init_from"] = str(folder)  # sizes and tokenizer; what it began with may be gone
    base = {**config, "trainer": trainer, "model": model}
    configuration.values = merge(base, configuration.values)


def where_to_start(
    run_dir: Path, ckpt_path: str | None, *, overwrite: bool, fast_dev_run: Any, max_steps: int
) -> tuple[str | None, str]:
    """Find the checkpoint that `fit` continues from, and remove what a killed save left behind.

    A run that is to be overwritten stands until the new one begins: see `Opening`.

    Returns:
        Its path, or None for a run that does not exist yet; and a line that says what was chosen
        and why, empty where nothing was to choose.

    Raises:
        ValueError: the run exists and nothing says what is to become of it, or there is no such
            checkpoint.
    """
    by_name = ckpt_path not in (None, LAST)
    if by_name and overwrite:
        raise ValueError(
            f"--overwrite true deletes {run_dir}, and --ckpt_path {ckpt_path} continues a "
            "checkpoint: give one of them"
        )
    if overwrite and (others := runs_below(run_dir)):
        raise ValueError(
            f"--overwrite true would delete {run_dir}, which holds other runs "
            f"({', '.join(str(run.relative_to(run_dir)) for run in others)}): name one of them "
            "with --run, or delete the folder yourself"
        )
    if not by_name and (fast_dev_run or overwrite):  # the first writes nothing
        return None, ""
    if is_first_process():
        clean_leftovers(run_dir)
    there = checkpoints(run_dir)
    if not there and not by_name:
        none_yet = f"{run_dir} holds no checkpoint yet: starting at step 0"
        return None, none_yet if ckpt_path == LAST else ""
    if ckpt_path is None:
        raise ValueError(
            f"{run_dir} already holds a run ({there[-1].name}).\n"
            "Add --ckpt_path last to continue it, --run NAME to start another one, "
            "or --overwrite true to delete it"
        )
    with asked_by("--ckpt_path"):
        choice = choose(ckpt_path, run_dir, content=is_first_process())
    step = read_meta(choice.folder)["step"]
    return str(choice.folder), f"{choice}, step {step} of {max_steps}"


def refuse_to_delete_base(run_dir: Path, init_from: str) -> None:
    """Refuse to start adapters in place of the run that holds the weights they belong to.

    Raises:
        ValueError: says which checkpoint they would need.
    """
    for folder in lineage(resolve(init_from)):
        if folder.resolve().is_relative_to(run_dir.resolve()):
            raise ValueError(
                f"--overwrite true would delete {folder}, which the adapters of this run belong "
                "to: give the run another name with --run"
            )


class Opening(L.Callback):
    """Deletes the run that a new one replaces, and says what was settled.

    Not before the first step: until then the new run may be refused, and the old one comes back.

    Args:
        replaced: the old run's folder, if it is to go
        notes: lines to print
    """

    def __init__(self, replaced: Path | None, notes: Sequence[str]) -> None:
        there = replaced is not None and replaced.is_dir()
        self._old = sorted(replaced.iterdir()) if replaced is not None and there else []
        self._aside: Path | None = None
        self.notes = notes

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._old and trainer.is_global_zero:
            self._aside = temporary_beside(self._old[0].parent / "replaced")
            self._aside.mkdir()
            for path in self._old:
                path.rename(self._aside / path.name)
        trainer.strategy.barrier("the old run is set aside")
        self._say()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Behind `on_train_start` of all callbacks: nobody refuses any more."""
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._aside = None

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if self._aside is None:
            return
        for path in [*self._aside.parent.iterdir()]:  # what the refused run has written so far
            if path != self._aside:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self._old:
            (self._aside / path.name).rename(path)
        self._aside.rmdir()
        self._aside = None

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._say()

    on_test_start = on_validation_start

    def _say(self) -> None:
        for note in self.notes:
            say(note)
        self.notes = ()
