"""What a model is asked in `predict`, and where the prompts come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from lit_llm.tokenizer.chat import Message, question_from


@dataclass(frozen=True)
class Prompt:
    """One thing to be answered or completed; either `text` or `messages` is given."""

    index: int
    """Its number among all prompts, counted from 0."""

    text: str | None = None
    """Plain text: what it is put into, a chat or nothing, is up to the model's checkpoint."""

    messages: tuple[Message, ...] | None = None
    """A chat so far, to be answered by the assistant."""

    expected: str | None = None
    """The right answer, where one is known."""

    grade: Callable[[str], bool] | None = None
    """Whether a reply is right, where that can be told."""

    kind: str | None = None
    """What kind of question it is, to count right answers by."""

    is_beginning: bool = False
    """The text is the beginning of one, to be completed even by a model that chats."""


class Questions(Protocol):
    """A test with known answers, such as the village's.

    Each question has `prompt`, `answer`, `grade(reply)`, `kind` and `is_chat`: whether it is a
    chat turn or the beginning of a text. The return type is Any because jsonargparse, which makes
    one from YAML, compares return types to the letter.
    """

    def questions(self) -> Any: ...


def from_texts(texts: list[str]) -> list[Prompt]:
    """Plain prompts, in their order."""
    return [Prompt(index, text) for index, text in enumerate(texts)]


def from_questions(questions: Questions) -> list[Prompt]:
    """The questions of a test, in its order."""
    return [
        Prompt(
            index,
            text=None if question.is_chat else question.prompt,
            messages=(Message("user", question.prompt),) if question.is_chat else None,
            expected=question.answer,
            grade=question.grade,
            kind=question.kind,
            is_beginning=not question.is_chat,
        )
        for index, question in enumerate(questions.questions())
    ]


def from_file(path: Path) -> list[Prompt]:
    """Read prompts from a file: `.jsonl` with an object per line, else text with one per line.

    Empty lines are passed over. An object has `prompt` (a text) or `messages` (a chat whose last
    turn is the user's); `response` is the right answer and `kind` its kind, if they are known.

    Raises:
        ValueError: the file is not there, holds no prompt, or has a line that is none; with its
            number.
    """
    if not path.is_file():
        raise ValueError(f"no file {path} (looked in {Path.cwd()}): check data.file")
    parse = _parse if path.suffix == ".jsonl" else Prompt
    prompts: list[Prompt] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
            if text.strip():
                prompts.append(parse(len(prompts), text))
        # Broken JSON and invalid UTF-8 are ValueErrors too, a thousand brackets a RecursionError.
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    if not prompts:
        raise ValueError(f"{path} holds no prompt: write one per line")
    return prompts


def _parse(index: int, line: str) -> Prompt:
    record = json.loads(line)
    if not isinstance(record, dict) or ("prompt" in record) == ("messages" in record):
        raise ValueError('an object with either "prompt" or "messages" is needed')
    expected, kind = (_optional_text(record, field) for field in ("response", "kind"))
    grade = None if expected is None else partial(_equal, expected)
    if "prompt" in record:
        if not isinstance(record["prompt"], str):
            raise ValueError('"prompt" must be a text')
        return Prompt(index, record["prompt"], None, expected, grade, kind)
    return Prompt(index, None, question_from(record["messages"]), expected, grade, kind)


def _equal(expected: str, reply: str) -> bool:
    return reply.strip() == expected.strip()


def _optional_text(record: dict[str, Any], field: str) -> str | None:
    value = record.get(field)
    if value is not None and not isinstance(value, str):
        raise ValueError(f'"{field}" must be a text')
    return value
