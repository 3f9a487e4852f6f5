"""predict: answers to prompts, from a checkpoint and nothing else."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lit_llm.callbacks.progress import Progress
from lit_llm.commands.bounds import refuse_flat, refuse_seed
from lit_llm.commands.docstrings import read_docstrings
from lit_llm.commands.fit import RunParser, quiet_libraries
from lit_llm.commands.launch import settle_precision
from lit_llm.commands.parser import explained_errors, merged, read
from lit_llm.commands.precision import auto_precision
from lit_llm.commands.processes import say
from lit_llm.commands.refusals import refuse_early
from lit_llm.data.prompt_data import PromptData
from lit_llm.generation.fast import Decoding
from lit_llm.generation.sampling import Sampling
from lit_llm.training.predictor import Answer, Predictor

TRAINER_DEFAULTS = {
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}

CUT_OFF = {"context": "the context is full", "length": "max_new_tokens reached"}


def run(command: str, arguments: list[str]) -> None:
    """Run predict."""
    read_docstrings(arguments)
    quiet_libraries()
    configuration, flags = read(arguments)
    refuse_flat(configuration, flags)
    refuse_seed(configuration, flags)
    notes = []
    if isinstance(configuration.values.get("trainer", {}), dict):  # else the parser complains
        notes = settle_precision(configuration, flags, precision_for)
    with explained_errors(configuration, flags):
        PredictCLI(args=[command, *merged(configuration), *flags], notes=notes)


def precision_for(kind: str) -> tuple[str, str]:
    """What `trainer.precision: auto` is here, and why."""
    if kind == "cpu":  # bfloat16 arithmetic, which pays in training, leaves the weights float32
        return "32-true", "generating on a CPU waits for the weights, which stay as they are"
    return auto_precision(kind, None)


class PredictCLI(LightningCLI):
    """A LightningCLI of its own: model and tokenizer are the checkpoint's, data are prompts."""

    def __init__(self, args: list[str], notes: Sequence[str] = ()) -> None:
        self._notes = notes
        super().__init__(
            Predictor,
            PromptData,
            save_config_callback=None,
            parser_class=RunParser,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=1337,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        skip = {"model", "datamodule", "dataloaders", "return_predictions", "weights_only"}
        return {"predict": skip}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(Sampling, "sampling")
        parser.add_class_arguments(Decoding, "decoding")
        parser.add_argument(
            "--output", type=str | None, default=None, help="JSONL file for the answers"
        )
        parser.add_lightning_class_args(Progress, "progress")
        parser.link_arguments("sampling", "model.sampling", apply_on="instantiate")
        parser.link_arguments("decoding", "model.decoding", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would put the checkpoint's values over what the user gave."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        refuse_early(config["trainer"])
        config["model"]["ckpt_path"] = config["ckpt_path"] or config["model"]["ckpt_path"]

    def predict(self, model: Predictor, datamodule: PromptData, **kwargs: Any) -> None:
        """Answer, show the answers, and write them to --output."""
        if self.trainer.world_size > 1:
            raise ValueError(
                f"predict runs on one device, got {self.trainer.world_size}: "
                "give --trainer.devices 1"
            )
        for note in self._notes:
            say(note)
        batches = self.trainer.predict(model, datamodule=datamodule)
        answers = [answer for batch in batches or [] for answer in batch]
        output = self._get(self.config, "output")
        if output is not None:
            _write(answers, Path(output))
        show(answers, Console())
        if output is not None:
            print(f"{len(answers)} answers in {output}")


def show(answers: list[Answer], console: Console) -> None:
    """Print answers one by one, or the accuracy by kind where the right ones are known."""
    if any(answer.kind is not None and answer.correct is not None for answer in answers):
        console.print(accuracy_table(answers))
        return
    for answer in answers:
        body = Text(answer.text)
        if answer.candidates is not None:
            body = Text("\n".join(_ranked(mask) for mask in answer.candidates))
        # A long answer that breaks off should say what broke it off.
        cut = CUT_OFF.get(answer.finish_reason)
        console.print(
            Panel(body, title=Text(answer.prompt), subtitle=cut, title_align="left", expand=False)
        )


def accuracy(answers: Iterable[Answer]) -> dict[str, tuple[int, int]]:
    """Right answers and questions of each kind, in the order of the kinds' first question."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for answer in answers:
        if answer.correct is not None:
            counts[answer.kind or "all"][0] += answer.correct
            counts[answer.kind or "all"][1] += 1
    return {kind: (right, total) for kind, (right, total) in counts.items()}


def accuracy_table(answers: list[Answer]) -> Table:
    """How many answers of each kind are right, with an example of each kind."""
    table = Table("kind", "right", "example", "answer", title="exact match by kind of question")
    examples = {answer.kind or "all": answer for answer in reversed(answers)}
    for kind, (right, total) in accuracy(answers).items():
        example = examples[kind]
        colour = "green" if example.correct else "red"
        table.add_row(
            kind,
            f"{right}/{total}",
            Text(example.prompt),
            Text(example.text.strip(), style=colour),
        )
    return table


def _ranked(mask: list[tuple[str, float]]) -> str:
    return "  ".join(f"{token.strip() or repr(token)} {share:.1%}" for token, share in mask)


def _write(answers: list[Answer], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(answer.plain(), ensure_ascii=False) + "\n" for answer in answers]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)
