"""Where tasks of lm-evaluation-harness come from: by name, or from a file of one's own.

A task by name fetches its data from the Hugging Face hub. A file needs no network:

    task: village
    dataset_path: json
    dataset_kwargs: {data_files: {test: village.jsonl}}   # beside the file
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{answer}}"
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LOGGERS = ("lm_eval", "datasets", "huggingface_hub", "httpx")


def load_tasks(name: str) -> dict[str, Any]:
    """Load a task, or a group of them, with its data.

    Args:
        name: as the harness knows it, or a task file

    Returns:
        Tasks and groups by name, as `TaskManager.load` returns them and `evaluate` takes them.

    Raises:
        ValueError: lm_eval is not there, nothing has that name, or the data cannot be had.
    """
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError:
        raise ValueError(
            f"{name} is a task of lm-evaluation-harness: pip install 'lit-llm[eval]'.\n"
            "Without it: bits_per_byte:FILE, multiple_choice:FILE.jsonl, exact_match:FILE.jsonl"
        ) from None
    with quiet():
        if _is_file(name):
            return _load_file(Path(name))
        manager = _all_tasks()
        if name not in manager.all_tasks:
            raise ValueError(f"no task {name!r}{_alike(name, manager.all_tasks)}")
        try:
            return manager.load([name])
        except Exception as error:  # of a dozen classes of four libraries
            raise ValueError(
                f"{name}: no data from the Hugging Face hub ({_said(error)}): "
                "without a network give a task file with dataset_path: json"
            ) from error


@functools.cache
def _all_tasks() -> Any:
    """The harness's own tasks, some 14,000; reading their files takes 4 s."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _is_file(name: str) -> bool:
    """Whether an entry is a task file of one's own."""
    return name.endswith((".yaml", ".yml"))


def _load_file(path: Path) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    if not path.is_file():
        raise ValueError(f"no file {path} (looked in {Path.cwd()})")
    known = _all_tasks() if _is_group(path) else TaskManager(include_defaults=False)
    # What the file names lies beside it, as in any other file of a project.
    with contextlib.chdir(path.absolute().parent), _uncounted():
        try:
            return known.load([path.name])
        except Exception as error:  # as above
            raise ValueError(f"{path}: {_said(_root(error))}") from error


def _is_group(path: Path) -> bool:
    """Whether a file names other tasks instead of describing one."""
    try:
        content = yaml.load(path.read_bytes(), Loader=_Loader)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no YAML: {_said(error)}") from None
    return isinstance(content, dict) and "group" in content


class _Loader(yaml.SafeLoader):
    """Reads `!function utils.score`, the harness's own tag, as its name."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value)


def _root(error: BaseException) -> BaseException:
    """What came first: "an error occurred while generating the dataset" helps nobody."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _alike(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else ": see lm_eval ls tasks, or give a .yaml file"


@contextlib.contextmanager
def _uncounted() -> Iterator[None]:
    """Reading a file of one's own, `datasets` would tell a server that its JSON reader was used."""
    from datasets import config

    before = config.HF_UPDATE_DOWNLOAD_COUNTS
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the harness and its libraries say about their own steps, bars included."""
    import datasets
    from tqdm import tqdm

    init, bars = tqdm.__init__, not datasets.are_progress_bars_disabled()
    levels = {logger: logger.level for logger in map(logging.getLogger, LOGGERS)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    tqdm.__init__ = functools.partialmethod(
        init, disable=True
    )  # it has no switch; progress is shown by us
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # "bootstrapping for stddev"
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        tqdm.__init__ = init
        if bars:
            datasets.enable_progress_bars()
