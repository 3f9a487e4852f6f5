"""Is the generated answer the right one? Greedy, so the same model always answers the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_llm.evaluation import records
from lit_llm.evaluation.answers import Prompt, answer
from lit_llm.evaluation.base import Options, Task
from lit_llm.evaluation.likelihood import OnProgress
from lit_llm.evaluation.result import Result, shares
from lit_llm.evaluation.subject import Subject
from lit_llm.generation.sampling import Sampling

NEW_TOKENS = 64


@dataclass(frozen=True)
class Asked:
    """One question."""

    question: records.Question
    answers: list[str]
    """Any of them is right"""

    kind: str | None = None


class ExactMatch(Task):
    """Share of answers that are equal to an accepted one, but for space around them.

    A model that was trained on conversations answers a turn of the user, until it ends its own.
    Any other one continues the text to the end of the line.
    """

    uses = frozenset({"chat", "max_new_tokens"})

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.questions = records.read_records(path, _parse)

    def run(self, subject: Subject, options: Options, on_progress: OnProgress) -> list[Result]:
        chat = subject.chat if options.chat is None else options.chat
        max_new_tokens = options.max_new_tokens or NEW_TOKENS
        questions = self.questions[: options.limit]
        context = subject.gpt.config.max_seq_len
        room = context - min(max_new_tokens, context // 2)
        prompts = [_prompt(subject, asked.question, chat) for asked in questions]
        replies = answer(
            subject,
            [Prompt(prompt.ids[-room:], prompt.stop) for prompt in prompts],
            Sampling(max_new_tokens=max_new_tokens),
            on_progress,
        )
        hits = [
            reply.strip() in [right.strip() for right in asked.answers]
            for reply, asked in zip(replies, questions, strict=True)
        ]
        metrics = shares("accuracy", hits, [asked.kind for asked in questions])
        cut = sum(len(prompt.ids) > room for prompt in prompts)
        settings = {"chat": chat, "max_new_tokens": max_new_tokens}
        return [Result(self.name, metrics, {"questions": len(questions), "cut": cut}, settings)]


def _prompt(subject: Subject, asked: records.Question, chat: bool) -> Prompt:
    if isinstance(asked, tuple) or chat:
        return Prompt(subject.conversation_ids(asked), ())
    return Prompt(subject.text_ids(asked) or [subject.prefix_id], ("\n",))


def _parse(record: dict[str, Any]) -> Asked:
    given = [name for name in ("answer", "answers", "response") if name in record]
    if len(given) != 1:
        raise ValueError(
            f'"answer" or "answers" is needed, one of them{records.there_is(record, "answer")}'
        )
    value = record[given[0]]
    accepted = [value] if isinstance(value, str) else records.texts(record, given[0])
    return Asked(records.question(record), accepted, records.kind(record))
