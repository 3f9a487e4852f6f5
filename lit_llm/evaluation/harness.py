"""Tasks of lm-evaluation-harness (Gao et al., 2021, doi:10.5281/zenodo.5371628)."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch

from lit_llm.evaluation.base import Options, Task
from lit_llm.evaluation.harness_tasks import load_tasks, quiet
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
        self.loaded: dict[str, Any] = load_tasks(name)
        for task_name, task in self.loaded["tasks"].items():
            if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
                raise ValueError(
                    f"{task_name} runs code that the model writes, or shows it pictures: evaluate "
                    "does neither"
                )

    def run(self, subject: Subject, options: Options, on_progress: OnProgress) -> list[Result]:
        from lm_eval.evaluator import evaluate

        from lit_llm.evaluation.harness_model import HarnessModel

        random.seed(SEEDS["random"])
        np.random.seed(SEEDS["numpy"])
        torch.manual_seed(SEEDS["torch"])
        for task in self.loaded["tasks"].values():
            _choose_fewshot(task, options.num_fewshot)
        with quiet():
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
