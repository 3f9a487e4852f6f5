"""Questions from JSON Lines: what is wrong with one is said with its file and line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lit_llm.tokenizer.chat import Message, question_from

Parsed = TypeVar("Parsed")
Question = str | tuple[Message, ...]
"""A plain text, or a conversation whose last turn is the user's."""


def read_records(path: Path, parse: Callable[[dict[str, Any]], Parsed]) -> list[Parsed]:
    """Read a file with one JSON object per line; empty lines are passed over.

    Args:
        path: the file, UTF-8
        parse: makes a question of an object; raises ValueError if it is none

    Raises:
        ValueError: the file is not there, holds no question, or a line is none; with its number.
    """
    if not path.is_file():
        raise ValueError(f"no file {path} (looked in {Path.cwd()}){_alike(path)}")
    parsed: list[Parsed] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if text.strip():
                parsed.append(parse(_object(text)))
        # Broken JSON and invalid UTF-8 are ValueErrors too, a thousand brackets a RecursionError.
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{number}: {error}") from None
    if not parsed:
        raise ValueError(f"{path} holds no question: write one JSON object per line")
    return parsed


def question(record: dict[str, Any]) -> Question:
    """What is asked: `prompt`, the same as `question`, or `messages`.

    Raises:
        ValueError: there is none of them, or more than one, or it is of another kind.
    """
    given = [name for name in ("prompt", "question", "messages") if name in record]
    if len(given) != 1:
        raise ValueError(
            f'"prompt", "question" or "messages" is needed, one of them{there_is(record, "prompt")}'
        )
    if given == ["messages"]:
        return question_from(record["messages"])
    return text(record, given[0])


def text(record: dict[str, Any], name: str) -> str:
    """A field that has to be there, and a text.

    Raises:
        ValueError: it is not.
    """
    if name not in record:
        raise ValueError(f'"{name}" is missing{there_is(record, name)}')
    if not isinstance(record[name], str):
        raise ValueError(f'"{name}" must be a text, got {json.dumps(record[name])[:40]}')
    return record[name]


def texts(record: dict[str, Any], name: str) -> list[str]:
    """A field that has to be there, and a list of texts.

    Raises:
        ValueError: it is not, or the list is empty.
    """
    if name not in record:
        raise ValueError(f'"{name}" is missing{there_is(record, name)}')
    value = record[name]
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f'"{name}" must be a list of texts, got {json.dumps(value)[:40]}')
    return value


def kind(record: dict[str, Any]) -> str | None:
    """The kind of question, if it is told."""
    return None if record.get("kind") is None else text(record, "kind")


def there_is(record: dict[str, Any], wanted: str) -> str:
    """What stands there instead of a field."""
    near = difflib.get_close_matches(wanted, record, 1)
    if near and near[0] != wanted:
        return f'; did you mean it by "{near[0]}"?'
    return f"; the line has {', '.join(record)}" if record else "; the line is empty"


def _object(line: str) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("a JSON object is needed")
    return record


def _alike(path: Path) -> str:
    names = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
