"""Tasks of lm-evaluation-harness (Gao et al., 2021, doi:10.5281/zenodo.5371628).

By name, whose data comes from the network, or from a file of one's own:

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
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from lit_llm.evaluation.base import Options, Task
from lit_llm.evaluation.likelihood import OnProgress
from lit_llm.evaluation.result import Metric, Result
from lit_llm.evaluation.subject import Subject

SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""Those of lm_eval's own command line: they choose examples, and the order of choices."""


class HarnessTask(Task):
    """One entry of --tasks: a task, or a group of them."""

    uses = frozenset({"num_fewshot"})

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded: dict[str, Any] = _load(name)

    def run(self, subject: Subject, options: Options, on_progress: OnProgress) -> list[Result]:
        from lm_eval.evaluator import evaluate

        from lit_llm.evaluation.harness_model import HarnessModel

        random.seed(SEEDS["random"])
        np.random.seed(SEEDS["numpy"])
        torch.manual_seed(SEEDS["torch"])
        for task in self.loaded["tasks"].values():
            _choose_fewshot(task, options.num_fewshot)
        with _quiet():
            found = evaluate(
                HarnessModel(subject, on_progress),
                self.loaded,
                limit=options.limit,
                log_samples=False,
            )
        return results(found)


def results(found: dict[str, Any]) -> list[Result]:
    """What `lm_eval` returns in our form: a result for each task, then for each group."""
    every = {**found["results"], **found.get("groups", {})}
    return [_result(name, numbers, found) for name, numbers in every.items()]


def _result(name: str, numbers: dict[str, Any], found: dict[str, Any]) -> Result:
    read = found.get("n-samples", {}).get(name, {}).get("effective", 0)
    metrics = []
    for key, value in numbers.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        shown = metric if filter_name == "none" else f"{metric} ({filter_name})"
        stderr = _number(numbers.get(f"{metric}_stderr,{filter_name}"))
        metrics.append(Metric(shown, float(value), stderr, read))
    settings = {"harness": True, "seeds": SEEDS}
    for key, column in (("version", "versions"), ("num_fewshot", "n-shot")):
        if name in found.get(column, {}):
            settings[key] = found[column][name]
    return Result(name, metrics, {"questions": read} if read else {}, settings)


def _number(value: Any) -> float | None:
    """The harness writes "N/A" where there is no standard error."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _choose_fewshot(task: Any, wanted: int | None) -> None:
    """As `lm_eval --num_fewshot`: a task whose file says 0 stays without examples."""
    given = task.get_config("num_fewshot")
    if wanted is not None and given != 0:
        task.set_config(key="num_fewshot", value=wanted)
    elif given is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=SEEDS["fewshot"])


def _load(name: str) -> dict[str, Any]:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise ValueError(
            f"{name} is a task of lm-evaluation-harness: pip install 'lit-llm[eval]'.\n"
            "Without it: bits_per_byte:FILE, multiple_choice:FILE.jsonl, exact_match:FILE.jsonl"
        ) from None
    with _quiet():
        if is_file(name):
            return _load_file(Path(name), TaskManager)
        manager = TaskManager()
        if name not in manager.all_tasks:
            raise ValueError(f"no task {name!r}{_alike(name, manager.all_tasks)}")
        try:
            return manager.load([name])
        except Exception as error:  # of a dozen classes of four libraries
            raise ValueError(
                f"{name}: its data did not come from the Hugging Face hub ({_said(error)}).\n"
                "Without a network: a task file with dataset_path: json, or bits_per_byte:FILE"
            ) from error


def is_file(name: str) -> bool:
    """Whether an entry is a task file of one's own."""
    return name.endswith((".yaml", ".yml"))


def _load_file(path: Path, manager_class: Any) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"no file {path} (looked in {Path.cwd()})")
    known = manager_class(include_defaults=_is_group(path))  # reading all of theirs takes seconds
    # What the file names lies beside it, as in any other file of a project.
    with contextlib.chdir(path.absolute().parent):
        try:
            return known.load([path.name])
        except Exception as error:  # as above
            raise ValueError(f"{path}: {_said(error)}") from error


def _is_group(path: Path) -> bool:
    """Whether a file names other tasks instead of describing one."""
    try:
        content = yaml.load(path.read_bytes(), _AnyTag)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no YAML: {_said(error)}") from None
    return isinstance(content, dict) and "group" in content


class _AnyTag(yaml.SafeLoader):
    """Reads `!function utils.score`, the harness's own tag, as its name."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: node.value)


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _alike(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]}?" if near else ": see lm_eval ls tasks, or give a .yaml file"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the harness logs about its own steps."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
