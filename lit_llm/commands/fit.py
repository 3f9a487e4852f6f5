"""fit, validate and test: a LightningCLI whose runs live in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_llm.callbacks.checkpointing import Checkpoint
from lit_llm.callbacks.csv_log import CSVLog
from lit_llm.callbacks.nan_guard import NanGuard
from lit_llm.callbacks.progress import Progress
from lit_llm.callbacks.run_report import RunReport
from lit_llm.callbacks.samples import Samples
from lit_llm.callbacks.save_config import SaveConfig
from lit_llm.callbacks.signals import Signals, Stopped
from lit_llm.callbacks.spike_guard import SpikeGuard
from lit_llm.callbacks.tensorboard_log import TensorBoardLog
from lit_llm.callbacks.throughput import Throughput
from lit_llm.callbacks.together import Together
from lit_llm.callbacks.watchdog import Watchdog
from lit_llm.checkpoint.base import find_base, is_adapted
from lit_llm.checkpoint.bundle import read_meta
from lit_llm.checkpoint.find import asked_by, choose
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.manifest import damage, listed
from lit_llm.commands.bounds import refuse_bounds, refuse_flat, refuse_seed
from lit_llm.commands.compose import Configuration
from lit_llm.commands.docstrings import read_docstrings
from lit_llm.commands.launch import settle
from lit_llm.commands.leave import leave
from lit_llm.commands.parser import (
    Parser,
    explained_errors,
    merged,
    read,
    refuse_linked,
)
from lit_llm.commands.processes import is_first_process, say
from lit_llm.commands.quiet import quiet_libraries
from lit_llm.commands.recheck import beside_the_log
from lit_llm.commands.refusals import refuse_early, refuse_lonely, trainer_refusal
from lit_llm.commands.restart import meet_afresh
from lit_llm.commands.rewinding import rewinding
from lit_llm.commands.secrets import redact_arguments
from lit_llm.commands.start import (
    Opening,
    adopt_checkpoint,
    adopt_run,
    refuse_to_delete_base,
    where_to_start,
)
from lit_llm.data.module import TextData
from lit_llm.planning.possible import refuse_model
from lit_llm.training.module import LitLLM
from lit_llm.training.resume import compare

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # the data is endless: max_steps ends a run
    "use_distributed_sampler": False,  # it would shuffle what our order has fixed
    "num_sanity_val_steps": 0,
    "inference_mode": False,  # FSDP2 cannot train with weights that were first gathered in it
    "check_val_every_n_epoch": None,  # there are no epochs: val_check_interval counts steps
    "log_every_n_steps": 10,
    "enable_model_summary": False,
}


def run(command: str, arguments: list[str]) -> None:
    """Run fit, validate or test."""
    meet_afresh()
    configuration, flags, notes = settled(command, arguments)
    with explained_errors(configuration, flags):
        try:
            base = [command, *merged(configuration), *flags]
            typed = ["python", "cli.py", command, *redact_arguments(arguments)]
            rewinding(
                lambda more: RunCLI(
                    args=[*base, *more], notes=[] if more else notes, command_line=typed
                )
            )
        except Stopped as stopped:
            leave(stopped)
        except RunIsComplete as complete:
            say(str(complete))


class RunIsComplete(Exception):
    """There is nothing left to train."""


def settled(command: str, arguments: list[str]) -> tuple[Configuration, list[str], list[str]]:
    """What a run is made of, complete: its configuration, its flags, and lines to print."""
    read_docstrings(arguments)
    quiet_libraries()
    configuration, flags = read(arguments)
    refuse_flat(configuration, flags)
    refuse_seed(configuration, flags)
    refuse_linked(configuration)
    if command in ("validate", "test"):
        adopt_run(configuration, flags)
    adopt_checkpoint(configuration, flags)
    notes = settle(configuration, flags)
    return configuration, flags, notes


class RunParser(Parser, LightningArgumentParser):
    """The same for LightningCLI."""


class RunCLI(LightningCLI):
    """A run is a folder: checkpoints/<run>/ holds what it writes and says whether it exists."""

    def __init__(
        self,
        args: list[str],
        notes: Sequence[str] = (),
        command_line: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self._command = args[0]
        self._command_line = command_line
        self._notes = list(notes)
        self._replaced: Path | None = None
        super().__init__(
            LitLLM,
            TextData,
            subclass_mode_data=True,
            save_config_callback=None,
            parser_class=RunParser,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=1337,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            **kwargs,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        # One command is asked for: the parsers of the others would cost a second at each start.
        skip = {"model", "datamodule", "train_dataloaders", "val_dataloaders", "dataloaders"}
        skip |= {"weights_only"}  # never anything else
        return {self._command: skip}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--run", type=str, default="unnamed", help="folder below runs_dir")
        parser.add_argument("--runs_dir", type=str, default="checkpoints", help="where runs live")
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="delete the run's folder and start anew"
        )
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        parser.add_lightning_class_args(Progress, "progress")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(NanGuard, "nan_guard")
        parser.add_lightning_class_args(SpikeGuard, "spike_guard")
        parser.add_lightning_class_args(Signals, "signals")
        parser.add_lightning_class_args(Watchdog, "watchdog")
        # Facts with one owner: the right-hand side leaves the command line and cannot be wrong.
        parser.link_arguments("data.vocab_size", "model.gpt.vocab_size", apply_on="instantiate")
        parser.link_arguments("data.init_args.seq_len", "model.gpt.max_seq_len")
        parser.link_arguments("seed_everything", "model.seed")
        parser.link_arguments("model.init_from", "data.init_args.tokenizer_from")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would put the checkpoint's values over what the user gave."""

    @property
    def run_dir(self) -> Path:
        return Path(self._get(self.config, "runs_dir")) / self._get(self.config, "run")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        refuse_early(config["trainer"], compile=config["model"]["compile"])
        if self.subcommand == "fit":
            refuse_bounds(config)
            trainer = config["trainer"]
            config["ckpt_path"], chosen = where_to_start(
                self.run_dir,
                config["ckpt_path"],
                overwrite=config["overwrite"],
                fast_dev_run=trainer["fast_dev_run"],
                max_steps=trainer["max_steps"],
            )
            self._notes.append(chosen)
            if config["overwrite"] and config["ckpt_path"] is None:
                self._replaced = None if trainer["fast_dev_run"] else self.run_dir
                if config["model"]["lora"] and config["model"]["init_from"]:
                    refuse_to_delete_base(self.run_dir, config["model"]["init_from"])
            if config["ckpt_path"] is not None:
                self._refuse_or_end(Path(config["ckpt_path"]), trainer["max_steps"])
        elif config["ckpt_path"] is None:
            raise ValueError(
                f"{self.subcommand} needs a checkpoint, got none: give --ckpt_path PATH or last"
            )
        else:
            with asked_by("--ckpt_path"):
                choice = choose(config["ckpt_path"], self.run_dir, content=is_first_process())
            self._notes.append(f"{self.subcommand}: {choice.folder} ({choice.why})")
            config["ckpt_path"] = str(choice.folder)

    def _refuse_or_end(self, folder: Path, max_steps: int) -> None:
        """End here if the run has made all its steps, and was made with this configuration."""
        meta = read_meta(folder)
        if not 0 < max_steps <= meta["step"]:
            return
        if not is_first_process() and damage(folder, listed(folder)):
            return  # the first process has found that it is damaged, and chosen another one
        for line in compare(meta["config"], self._plain_config()):
            say(line)
        raise RunIsComplete(
            f"{self.run_dir} is complete: it stands at step {meta['step']} of "
            f"trainer.max_steps={max_steps}.\nRaise --trainer.max_steps to go on, give --run NAME "
            "for another run, or --overwrite true to start this one anew"
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        loggers = config["logger"]
        if loggers is not False and not config["fast_dev_run"]:
            own = [CSVLog(str(self.run_dir)), TensorBoardLog(str(self.run_dir))]
            given = loggers if isinstance(loggers, list) else [loggers]
            loggers = own + [logger for logger in given if not isinstance(logger, bool | None)]
        callbacks = config["callbacks"] or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        own_first = [Together(), Opening(self._replaced, self._notes)]
        plugins = config["plugins"] or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        try:
            return super().instantiate_trainer(
                default_root_dir=str(self.run_dir),
                logger=loggers,
                callbacks=[*own_first, *callbacks, SaveConfig(), RunReport(self._command_line)],
                plugins=[*plugins, FolderCheckpointIO()],
                **kwargs,
            )
        except (
            ValueError,
            TypeError,
            RuntimeError,
            ImportError,
            MisconfigurationException,
        ) as error:
            # An unknown strategy, an accelerator that is not there, a precision it does not have.
            raise ValueError(trainer_refusal(config, error)) from None

    def after_instantiate_classes(self) -> None:
        self.model.run_config = self._plain_config()
        self._find_base(self._get(self.config, "ckpt_path"))
        refuse_lonely(self.trainer)
        refuse_model(self.model, self.trainer.num_nodes)

    def _find_base(self, ckpt_path: str | None) -> None:
        """Let adapters that were trained before meet the weights that they were trained over."""
        if self.model.lora is None or ckpt_path is None:
            return
        meta = read_meta(Path(ckpt_path))
        if is_adapted(meta):  # else it is refused where the configurations are compared
            given = self.model.init_from if self.subcommand == "fit" else None
            self.model.base = find_base(Path(ckpt_path), meta, given)

    def after_validate(self) -> None:
        checkpoint = self.config[self.subcommand]["ckpt_path"]
        if line := beside_the_log(Path(checkpoint), self.trainer.callback_metrics):
            say(line)

    def _plain_config(self) -> dict[str, Any]:
        """The whole configuration as parsed, without the links' targets."""
        text = self._parser(self.subcommand).dump(
            self.config[self.subcommand], skip_none=False, format="yaml"
        )
        config = yaml.safe_load(text)
        return {key: value for key, value in config.items() if key != "ckpt_path"}
