"""Conversations, in the three forms that data sets come in.

    {"prompt": "...", "response": "..."}
    {"instruction": "...", "input": "...", "output": "..."}        input may be missing or empty
    {"messages": [{"role": "user", "content": "..."}, ...]}        several turns, system prompts

in a JSON list, one per line (JSONL), both compressed or not, or one per row (Parquet).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_llm.data.corpus.base import Bad, Conversation, Corpus, Unit
from lit_llm.data.corpus.compressed import Damaged, opened, suffix
from lit_llm.data.corpus.files import FileUnit, file_units, find_files
from lit_llm.data.corpus.json_list import items
from lit_llm.data.corpus.jsonl import Repeating, kind, objects
from lit_llm.data.corpus.lines import BOM, Span
from lit_llm.data.corpus.parquet import ParquetUnit, open_parquet, parquet_units
from lit_llm.tokenizer.chat import Message

FORMS = (("messages",), ("prompt", "response"), ("instruction", "output"))
ROLES = ("system", "user", "assistant")


class Conversations(Corpus):
    """Conversations from JSON, JSONL or Parquet, told apart by the file's name and content.

    Args:
        path: a file or a folder
        glob: which files of a folder
    """

    def __init__(self, path: str | Path, glob: str = "**/*.*") -> None:
        self.path = Path(path)
        self.glob = glob

    def units(self) -> list[Unit]:
        """One unit for each file, piece of a big file, or group of small ones.

        Raises:
            ValueError: no .json, .jsonl or .parquet file is there.
        """
        files = find_files(self.path, self.glob, compressed=True)
        parquet = [file for file in files if file[1].suffix == ".parquet"]
        text = [file for file in files if suffix(file[1]) in (".json", ".jsonl")]
        lists = [file for file in text if _is_list(file[1])]
        lines = [file for file in text if file not in lists]
        if not parquet and not text:
            raise ValueError(f"no .json, .jsonl or .parquet in {self.path}: check corpus.path")
        rows = [
            unit
            for name, path in parquet
            for unit in parquet_units(name, path, _columns(path), ConversationRows)
        ]
        return [
            *file_units(lines, b"\n", ConversationLines),
            *file_units(lists, None, ConversationList),
            *rows,
        ]


@dataclass(frozen=True)
class ConversationLines(FileUnit):
    """One object per line."""

    def read_span(self, span: Span) -> Iterator[Conversation | Bad]:
        for source, record in objects(span):
            yield record if isinstance(record, Bad) else conversation(record, source)


@dataclass(frozen=True)
class ConversationList(FileUnit):
    """A file that is one JSON list."""

    def read_span(self, span: Span) -> Iterator[Conversation | Bad]:
        for source, record in items(span):
            yield record if isinstance(record, Bad) else conversation(record, source)


@dataclass(frozen=True)
class ConversationRows(ParquetUnit):
    """Rows of a Parquet file."""

    def read(self) -> Iterator[Conversation | Bad]:
        for source, row in self.rows():
            yield row if isinstance(row, Bad) else conversation(row, source)


def conversation(record: Any, source: str) -> Conversation | Bad:
    """Turn a record of any of the three forms into messages."""
    if not isinstance(record, dict):
        return Bad(source, f"{kind(record)} instead of an object")
    if isinstance(record, Repeating):
        return record.bad(source)
    if "messages" in record:
        return _turns(record["messages"], source)
    if "prompt" in record and "response" in record:
        return _turns([("user", record["prompt"]), ("assistant", record["response"])], source)
    if "instruction" in record and "output" in record:
        prompt, extra = record["instruction"], record.get("input") or ""
        if isinstance(prompt, str) and isinstance(extra, str):
            prompt = f"{prompt}\n\n{extra}" if extra else prompt
        else:
            prompt = prompt if isinstance(extra, str) else extra  # named as the fault below
        return _turns([("user", prompt), ("assistant", record["output"])], source)
    return Bad(
        source,
        "neither messages, nor prompt and response, nor instruction and output "
        f"(there are: {', '.join(map(repr, [*record][:5]))})",
    )


def _turns(turns: Any, source: str) -> Conversation | Bad:
    if not isinstance(turns, list):
        return Bad(source, f"messages is {kind(turns)}, not a list")
    messages = []
    for turn in turns:
        if isinstance(turn, Repeating):
            return turn.bad(source)
        if isinstance(turn, dict):
            turn = (turn.get("role"), turn.get("content"))
        elif not isinstance(turn, tuple):
            return Bad(source, f"a message is {kind(turn)}, not an object")
        role, content = turn
        if role not in ROLES:
            return Bad(source, f"role {str(role)[:20]!r} is none of {', '.join(ROLES)}")
        if not isinstance(content, str):
            return Bad(source, f"{role}: {kind(content)}, not a text")
        messages.append(Message(role, content))
    return Conversation(tuple(messages), source)


def _is_list(path: Path) -> bool:
    try:
        with opened(path) as source:
            return source.read(4096).removeprefix(BOM).lstrip()[:1] == b"["
    except Damaged:
        return False  # a bad record of either


def _columns(path: Path) -> tuple[str, ...]:
    names = open_parquet(path).schema_arrow.names
    for form in FORMS:
        if all(column in names for column in form):
            extra = ("input",) if form[0] == "instruction" and "input" in names else ()
            return (*form, *extra)
    raise ValueError(
        f"{path} holds no conversations: its columns are {', '.join(names[:12])}\n"
        "needed: messages, or prompt and response, or instruction and output"
    )
