"""JSON, one object per line.

Our own reader and not that of `datasets`: one broken line makes that one lose the whole file, and
a missing field passes it silently.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from lit_llm.data.corpus.base import Bad, Corpus, Text
from lit_llm.data.corpus.files import FileUnit, file_units, find_files
from lit_llm.data.corpus.lines import MAX_RECORD_BYTES, Span, records
from lit_llm.data.corpus.text import decode


class Jsonl(Corpus):
    r"""JSON Lines, compressed or not: each line an object with the document in one field.

    The text is taken as it is, `\r\n` included; empty lines are passed over.

    Args:
        path: a file or a folder
        field: name of the field that holds the text
        glob: which files of a folder; `*.jsonl` finds *.jsonl.gz, .bz2, .xz, .zst and .zip too
    """

    def __init__(self, path: str | Path, field: str = "text", glob: str = "**/*.jsonl") -> None:
        self.path = Path(path)
        self.field = field
        self.glob = glob

    def units(self) -> list[JsonlUnit]:  # type: ignore[override]
        """One unit for each file, piece of a big file, or group of small ones."""
        files = find_files(self.path, self.glob, compressed=True)
        return file_units(files, b"\n", lambda spans: JsonlUnit(spans, self.field))


class Repeating(dict[str, Any]):
    """An object that has a key twice: JSON's own reader keeps the last and says nothing."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.key = Counter(key for key, _ in pairs).most_common(1)[0][0]

    def bad(self, source: str) -> Bad:
        """Say so."""
        return Bad(source, f"the key {self.key[:40]!r} is there twice")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeating(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Reads JSON; an object with a key that is there twice comes out as `Repeating`."""


@dataclass(frozen=True)
class JsonlUnit(FileUnit):
    """JSON Lines with the text in `field`."""

    field: str

    def settings(self) -> str:
        return repr(self.field)

    def read_span(self, span: Span) -> Iterator[Text | Bad]:
        for source, record in objects(span):
            yield record if isinstance(record, Bad) else text_field(record, self.field, source)


def objects(span: Span) -> Iterator[tuple[str, dict[str, Any] | Bad]]:
    """Yield (source, object) of every line that is not empty."""
    for line, record in records(span, b"\n", MAX_RECORD_BYTES):
        source = f"{span.name}:{line}"
        if isinstance(record, str):
            yield source, Bad(source, record)
        elif record.strip():
            yield source, parse(record, source)


def parse(record: bytes, source: str) -> dict[str, Any] | Bad:
    """Read one JSON object."""
    if b"\0" in record:
        return Bad(source, "NUL byte (a binary file, or UTF-16?)")
    text = decode(record, source)
    if isinstance(text, Bad):
        return text
    try:
        value = DECODER.decode(text.text)
    except json.JSONDecodeError as error:
        return Bad(source, f"broken JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 1,000 brackets
        return Bad(source, f"broken JSON: {str(error).splitlines()[0][:80]}")
    if not isinstance(value, dict):
        return Bad(source, f"{kind(value)} instead of an object")
    return value.bad(source) if isinstance(value, Repeating) else value


def text_field(record: dict[str, Any], field: str, source: str) -> Text | Bad:
    """Take the text out of a record."""
    if field not in record:
        return Bad(source, f"no field {field!r} (there are: {', '.join(map(repr, [*record][:5]))})")
    text = record[field]
    return (
        Text(text, source)
        if isinstance(text, str)
        else Bad(source, f"field {field!r} is {kind(text)}, not a text")
    )


def kind(value: Any) -> str:
    """Say what a JSON value is, in JSON's words."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        bytes: "bytes",
        type(None): "null",
    }
    if isinstance(value, int | float | Decimal):
        return names.get(type(value), "a number")
    return names.get(type(value), f"a {type(value).__name__}")
