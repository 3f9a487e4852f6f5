"""What the command may assume of any task.

To add one of your own, subclass `Task` and name it in `KINDS` of lit_llm/evaluation/tasks.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lit_llm.evaluation.likelihood import OnProgress
from lit_llm.evaluation.result import Result
from lit_llm.evaluation.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user may choose; None: as each task has it."""

    limit: int | None = None
    """Of each task, only the first so many questions, documents or windows"""

    chat: bool | None = None
    """Ask in the chat template; None: if the model was trained on conversations"""

    stride: int | None = None
    """Tokens that each window of a text predicts, after its first; None: half the context"""

    max_new_tokens: int | None = None
    """Tokens of an answer at most"""

    num_fewshot: int | None = None
    """Solved examples before each question of the harness; None: as its task says"""


class Task(ABC):
    """Something to evaluate a model on. Making one reads its data, so that errors come early."""

    uses: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Options` that it looks at, besides `limit`"""

    name: str
    """As the user has written it"""

    @abstractmethod
    def run(self, subject: Subject, options: Options, on_progress: OnProgress) -> list[Result]:
        """Evaluate the model.

        Raises:
            ValueError: the model cannot do what the task asks for.
        """
