"""The items of a JSON list, one after another, without holding the list in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from lit_llm.data.corpus.base import Bad
from lit_llm.data.corpus.compressed import Source, opened
from lit_llm.data.corpus.jsonl import DECODER
from lit_llm.data.corpus.lines import CHUNK, MAX_RECORD_BYTES, Span

SPACE = re.compile(r"[ \t\r\n]*")


def items(span: Span) -> Iterator[tuple[str, Any]]:
    """Yield (source, value) of each item of the list that a file is.

    A fault in the JSON itself ends the list with a `Bad`, for nobody knows where the next item
    begins. Bytes that are not UTF-8 come out as lone surrogates: one bad record, not a bad file.
    """
    with opened(span.path) as handle:
        cursor = _Cursor(handle)
        if cursor.peek() != "[":
            yield f"{span.name}:{cursor.line}", Bad(span.name, "no JSON list")
            return
        closing = ","
        cursor.step()
        if cursor.peek() == "]":
            return
        while closing == ",":
            cursor.peek()
            source = f"{span.name}:{cursor.line}"
            try:
                value = cursor.value()
            except (ValueError, RecursionError) as error:
                reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:80]
                yield source, Bad(source, f"broken JSON: {reason}; the rest is not read")
                return
            yield source, value
            closing = cursor.peek()
            cursor.step()
        if closing != "]":
            source = f"{span.name}:{cursor.line}"
            yield source, Bad(source, "broken JSON: no , or ] here; the rest is not read")


class _Cursor:
    """A place in a stream of JSON text, of which little more than one item is held."""

    def __init__(self, handle: Source) -> None:
        self.line = 1
        self._handle = handle
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._parser = DECODER
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """Go over white space; return the character there, "" at the end of the file."""
        while True:
            space = SPACE.match(self._text, self._at)
            self._forward(space.end() if space else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def step(self) -> None:
        """Go over one character."""
        self._forward(min(self._at + 1, len(self._text)))

    def value(self) -> Any:
        """Read the value that begins here."""
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > MAX_RECORD_BYTES or not self._more():
                    raise
                continue  # perhaps it was only cut
            if end == len(self._text) and self._more():
                continue  # 12 may be the beginning of 123
            self._forward(end)
            return value

    def _forward(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Read as much again as is held, so that a long item is not tried too often."""
        data = self._handle.read(max(CHUNK, len(self._text) - self._at))
        if data:
            self._text = self._text[self._at :] + self._decoder.decode(data)
            self._at = 0
        return bool(data)
