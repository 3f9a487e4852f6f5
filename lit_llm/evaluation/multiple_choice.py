"""Which of the choices is the likeliest to follow the question?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_llm.evaluation import records
from lit_llm.evaluation.base import Options, Task
from lit_llm.evaluation.likelihood import OnProgress, Pair, likelihoods
from lit_llm.evaluation.result import Result, shares
from lit_llm.evaluation.subject import Subject


@dataclass(frozen=True)
class Choices:
    """One question."""

    question: records.Question
    choices: list[str]
    answer: int
    """Index of the right choice"""

    kind: str | None = None
    delimiter: str | None = None
    """Between question and choice; None: a space, where neither of them brings one"""


class MultipleChoice(Task):
    """Accuracy of the likeliest choice, and of the likeliest for its length.

    The sum of a long choice's log-probabilities is lower than a short one's, whatever it says;
    `accuracy_per_byte` divides it by the choice's bytes in UTF-8. Of equals the first is taken.
    """

    uses = frozenset({"chat"})

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.questions = records.read_records(path, _parse)

    def run(self, subject: Subject, options: Options, on_progress: OnProgress) -> list[Result]:
        chat = subject.chat if options.chat is None else options.chat
        questions = self.questions[: options.limit]
        pairs = [pair for question in questions for pair in _pairs(subject, question, chat)]
        scores = likelihoods(
            subject.gpt, pairs, batch_size=subject.batch_size, on_progress=on_progress
        )
        logprobs = iter([score.logprob for score in scores])
        whole, per_byte = [], []
        for question in questions:
            sums = [next(logprobs) for _ in question.choices]
            sizes = [len(choice.encode()) for choice in question.choices]
            means = [total / size for total, size in zip(sums, sizes, strict=True)]
            whole.append(sums.index(max(sums)) == question.answer)
            per_byte.append(means.index(max(means)) == question.answer)
        kinds = [question.kind for question in questions]
        metrics = [
            *shares("accuracy", whole, kinds),
            *shares("accuracy_per_byte", per_byte, kinds),
        ]
        room = subject.gpt.config.max_seq_len + 1
        cut = sum(len(pair.context) + len(pair.continuation) > room for pair in pairs)
        counts = {"questions": len(questions), "choices": len(pairs), "cut": cut}
        return [Result(self.name, metrics, counts, {"chat": chat})]


def _pairs(subject: Subject, question: Choices, chat: bool) -> list[Pair]:
    asked, encode = question.question, subject.tokenizer.encode_inside
    if isinstance(asked, tuple) or chat:
        context = subject.conversation_ids(asked)
        return [Pair(context, encode(choice)) for choice in question.choices]
    # A space belongs to the token of the word after it, so it goes to the choices.
    stem = asked.rstrip(" ")
    context = subject.text_ids(stem) or [subject.prefix_id]
    return [
        Pair(context, encode(_gap(question, asked, stem, choice) + choice))
        for choice in question.choices
    ]


def _gap(question: Choices, asked: str, stem: str, choice: str) -> str:
    if question.delimiter is not None:
        return asked[len(stem) :] + question.delimiter
    if asked == stem and stem and not stem[-1].isspace() and not choice[0].isspace():
        return " "
    return asked[len(stem) :]


def _parse(record: dict[str, Any]) -> Choices:
    asked, choices = records.question(record), records.texts(record, "choices")
    if len(choices) < 2 or not all(choices):
        raise ValueError('"choices" must be two texts or more, none of them empty')
    delimiter = records.text(record, "delimiter") if "delimiter" in record else None
    return Choices(asked, choices, _answer(record, choices), records.kind(record), delimiter)


def _answer(record: dict[str, Any], choices: list[str]) -> int:
    if "answer" not in record:
        raise ValueError(f'"answer" is missing{records.there_is(record, "answer")}')
    answer = record["answer"]
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    is_index = isinstance(answer, int) and not isinstance(answer, bool)
    if is_index and 0 <= answer < len(choices):
        return answer
    raise ValueError(
        f'"answer" must be one of the choices or its index from 0 to {len(choices) - 1}, '
        f"got {answer!r}"
    )
