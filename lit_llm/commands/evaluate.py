"""evaluate: bits per byte, multiple choice, exact match and lm-evaluation-harness.

A further kind of task is a class in lit_llm/evaluation/ and a line in KINDS of its tasks.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jsonargparse.typing import NonNegativeInt, PositiveInt

from lit_llm.commands.small_parser import SmallParser

if TYPE_CHECKING:  # what evaluates imports torch, which --help does without
    from rich.table import Table

    from lit_llm.evaluation.base import Options, Task
    from lit_llm.evaluation.likelihood import OnProgress
    from lit_llm.evaluation.result import Metric, Result
    from lit_llm.evaluation.subject import Subject

EXAMPLE = "python cli.py evaluate --ckpt_path checkpoints/RUN --tasks bits_per_byte:FILE"
TASKS = """a list, or with commas: bits_per_byte:FILE_OR_FOLDER; multiple_choice:FILE.jsonl;
exact_match:FILE.jsonl; a task file of lm-evaluation-harness, my_task.yaml; one of its own tasks,
hellaswag"""
ABOVE_0 = "a whole number above 0"
WANTED = dict.fromkeys(("limit", "batch_size", "max_new_tokens", "stride"), ABOVE_0)
WANTED |= {"chat": "true or false", "num_fewshot": "a whole number from 0 on"}


def run(command: str, arguments: list[str]) -> None:
    """Run evaluate."""
    given = _parser().parse_args(arguments)
    from rich.console import Console

    from lit_llm.checkpoint.find import asked_by, resolve
    from lit_llm.evaluation.base import Options
    from lit_llm.evaluation.history import append, history_file, read_history, versions
    from lit_llm.evaluation.subject import load_subject
    from lit_llm.evaluation.tasks import read_tasks

    with asked_by("--ckpt_path"):
        checkpoint = resolve(given.ckpt_path)
    file = Path(given.output) if given.output else history_file(checkpoint)
    read_history(file)  # what is wrong with it should be said before the hours, not after them
    names = ("limit", "chat", "stride", "max_new_tokens", "num_fewshot")
    options = Options(**{name: given[name] for name in names})
    tasks = read_tasks(given.tasks, options)
    subject = load_subject(
        checkpoint, device=given.device, precision=given.precision, batch_size=given.batch_size
    )
    began, start = time.gmtime(), time.perf_counter()
    results: list[Result] = []
    try:
        for task in tasks:
            results += _evaluated(task, subject, options)
    finally:  # what has been found stays, whatever becomes of the next task
        if results:
            entry = {
                "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", began),
                "seconds": round(time.perf_counter() - start, 3),
                "checkpoint": str(checkpoint),
                **subject.about(),
                "settings": {name: given[name] for name in ("tasks", "batch_size", *names)},
                "results": [result.plain() for result in results],
                "versions": versions(),
            }
            append(file, entry)
            Console().print(table(results))
            print(f"in {file}")
            _redraw(file)


def table(results: list[Result]) -> Table:
    """Every metric of every task, with its standard error."""
    from rich.table import Table

    shown = Table("task", "metric", "value", "± stderr", "of")
    for number, column in enumerate(shown.columns):
        column.justify = "left" if number < 2 else "right"
        column.overflow = "fold"  # the end of a path is what tells two files apart
    for result in results:
        for number, metric in enumerate(result.metrics):
            shown.add_row("" if number else result.task, metric.name, *_cells(metric))
        if cut := result.counts.get("cut"):
            shown.add_row("", f"{cut} cut on the left, to fit the context", "", "", "")
    return shown


def _cells(metric: Metric) -> tuple[str, str, str]:
    stderr = "" if metric.stderr is None else f"{metric.stderr:.4f}"
    return f"{metric.value:.4f}", stderr, f"{metric.count:,}"


def _evaluated(task: Task, subject: Subject, options: Options) -> list[Result]:
    with _progress(task.name) as on_progress:
        return task.run(subject, options, on_progress)


@contextmanager
def _progress(name: str) -> Iterator[OnProgress]:
    """A bar on standard error, where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        shown = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def _redraw(file: Path) -> None:
    """Draw the report of the run again, if it was noted in one."""
    from lit_llm.evaluation.history import FILE

    if file.name == FILE and (file.parent / "metrics.csv").is_file():
        from lit_llm.callbacks.run_report import write_report

        try:
            print(f"report: {write_report(file.parent)}")
        except ValueError as error:  # a run that has logged nothing yet
            print(f"no report: {error}")


def _parser() -> SmallParser:
    parser = _Parser("evaluate", EXAMPLE)
    add = parser.add_argument
    add("-c", "--config", action="config", help="a YAML file with these keys")
    add("--ckpt_path", required=True, help="a checkpoint, or a run for its newest")
    add("--tasks", required=True, type=list[str] | str, help=TASKS)
    add("--limit", type=PositiveInt | None, help="only the first N questions or windows of a task")
    add("--batch_size", type=PositiveInt, default=16, help="rows of a forward pass")
    add("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1")
    add("--precision", default="saved", choices=["saved", "float32", "bfloat16"])
    add("--chat", type=bool | None, help="ask in the chat template; else if trained on chats")
    add("--max_new_tokens", type=PositiveInt | None, help="of an exact_match answer; else 64")
    add("--stride", type=PositiveInt | None, help="of bits_per_byte; else half the context")
    add(
        "--num_fewshot",
        type=NonNegativeInt | None,
        help="examples of the harness; else as its tasks say",
    )
    add("--output", type=str | None, help="JSON file; else evaluation.json of the run")
    return parser


class _Parser(SmallParser):
    """Names the flag that a value or a file's key was meant for."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        key = re.match(r'Parser key "(\w+)":', message)
        if key and key[1] in WANTED:
            given = re.search(r"Given value: (.*)|base 10: '(.*)'", message)
            got = f", got {given[1] or given[2]}" if given else ""
            message = f"--{key[1]} must be {WANTED[key[1]]}{got}"
        super().error(message, ex)
