"""Which task is meant by an entry of --tasks?

bits_per_byte:FILE_OR_FOLDER
multiple_choice:FILE.jsonl
exact_match:FILE.jsonl
my_task.yaml                  a task file of lm-evaluation-harness
hellaswag                     a task that comes with it
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from lit_llm.evaluation.base import Options, Task
from lit_llm.evaluation.bits_per_byte import BitsPerByte
from lit_llm.evaluation.exact_match import ExactMatch
from lit_llm.evaluation.harness import HarnessTask
from lit_llm.evaluation.multiple_choice import MultipleChoice

# kind: what makes a task of (the whole entry, the path in it)
KINDS: dict[str, Callable[[str, Path], Task]] = {
    "bits_per_byte": BitsPerByte,
    "multiple_choice": MultipleChoice,
    "exact_match": ExactMatch,
}


def read_tasks(entries: str | Sequence[str], options: Options) -> list[Task]:
    """Make the tasks, which reads their data.

    Args:
        entries: a list, or a text with commas between its entries
        options: those that the user has given

    Raises:
        ValueError: an entry is no task, its data is not there or malformed, or an option is given
            that none of the tasks looks at.
    """
    names = entries.split(",") if isinstance(entries, str) else list(entries)
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"--tasks names no task: give one of {', '.join(KINDS)} with :FILE")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--tasks has {twice[0]} twice")
    tasks = [_task(name) for name in names]
    for option in ("chat", "stride", "max_new_tokens", "num_fewshot"):
        if getattr(options, option) is not None and not any(option in t.uses for t in tasks):
            raise ValueError(f"--{option}: none of the tasks ({', '.join(names)}) looks at it")
    return tasks


def _task(name: str) -> Task:
    kind, colon, path = name.partition(":")
    if path and kind in KINDS:
        return KINDS[kind](name, Path(path))
    if kind in KINDS:
        raise ValueError(f"{name} of what? Give {kind}:FILE")
    if colon and not name.endswith((".yaml", ".yml")):  # C:\task.yaml has a colon too
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KINDS)}"
        raise ValueError(f"{name}: no kind of task {kind!r}; {hint}")
    if near := difflib.get_close_matches(name, KINDS, 1, cutoff=0.8):
        raise ValueError(f"no task {name!r}; did you mean {near[0]}:FILE?")
    return HarnessTask(name)
