"""Reading records of a file one after another, in bounded memory, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lit_llm.data.corpus.compressed import Damaged, is_compressed, opened

CHUNK = 2**20
BOM = b"\xef\xbb\xbf"
MAX_RECORD_BYTES = 64 * 2**20
"""Longer documents are refused: a worker holds some ten times a document's bytes while it encodes
it, and a line of gigabytes is not a line but a file of another format."""


@dataclass(frozen=True, slots=True)  # a corpus may have a hundred thousand of them
class Span:
    """A range of bytes of one file; borders never cut a record. A compressed file is one span."""

    path: Path
    name: str
    """Path inside the corpus, for messages."""
    start: int
    stop: int
    first_line: int
    """Number of the line at `start`, counted from 1."""


def records(span: Span, separator: bytes, max_bytes: int) -> Iterator[tuple[int, bytes | str]]:
    r"""Yield (line number, record) between separators; what is wrong for one over `max_bytes`.

    CRLF counts and comes out as LF. A byte order mark at the start of the file is dropped: it says
    "UTF-8", it is not text. The end of the last record needs no separator.

    Raises:
        Damaged: a compressed file breaks off, after the records that were complete before.
    """
    line, held, skipping = span.first_line, b"", False
    rest = bytearray()
    step = separator.count(b"\n")
    try:
        for index, chunk in enumerate(_chunks(span)):
            data = held + chunk
            held = b"\r" if data.endswith(b"\r") else b""  # perhaps half a CRLF
            data = data[: len(data) - len(held)].replace(b"\r\n", b"\n")
            if index == 0 and span.start == 0:
                data = data.removeprefix(BOM)
            seen = max(0, len(rest) - len(separator) + 1)
            rest += data
            if rest.find(separator, seen) >= 0:
                *found, last = bytes(rest).split(separator)
                rest = bytearray(last)
                for record in found:
                    if not skipping:
                        yield line, record if len(record) <= max_bytes else too_large(record)
                    skipping = False
                    line += record.count(b"\n") + step
            if len(rest) > max_bytes:
                if not skipping:
                    yield line, too_large(rest)
                skipping = True
                keep = len(rest) - (len(separator) - 1)  # the separator may have begun
                line += rest.count(b"\n", 0, keep)
                del rest[:keep]
    except Damaged as damage:
        damage.line = line + rest.count(b"\n")
        raise
    rest += held
    if rest and not skipping:
        yield line, bytes(rest) if len(rest) <= max_bytes else too_large(rest)


def whole(span: Span, max_bytes: int = MAX_RECORD_BYTES) -> bytes | str:
    """Return all of a span, with line ends, byte order mark and size as in `records`.

    Raises:
        Damaged: a compressed file breaks off.
    """
    pieces, size = [], 0
    known = None if is_compressed(span.path) else span.stop - span.start
    for chunk in _chunks(span):
        pieces.append(chunk)
        size += len(chunk)
        if (known or size) > max_bytes:
            return too_large(pieces[0], known)
    data = b"".join(pieces).replace(b"\r\n", b"\n")
    return data.removeprefix(BOM) if span.start == 0 else data


def split_file(path: Path, name: str, separator: bytes, size: int) -> list[Span]:
    """Cut a file into spans of about `size` bytes that end with a separator."""
    total = path.stat().st_size
    spans, start, line = [], 0, 1
    with path.open("rb") as handle:
        while total - start > size * 3 // 2:
            handle.seek(start)
            lines, stop = 0, start
            while stop < start + size:
                chunk = handle.read(min(CHUNK, start + size - stop))
                lines += chunk.count(b"\n")
                stop += len(chunk)
            passed = _through_separator(handle, separator)
            if not passed:
                break
            stop += passed[0]
            spans.append(Span(path, name, start, stop, line))
            start, line = stop, line + lines + passed[1]
    return [*spans, Span(path, name, start, total, line)] if start < total or not spans else spans


def _through_separator(handle: BinaryIO, separator: bytes) -> tuple[int, int] | None:
    """Bytes and newlines up to the end of the next separator; None if there is none."""
    spellings = (separator, separator.replace(b"\n", b"\r\n"))
    size, lines, window = 0, 0, b""
    while chunk := handle.read(CHUNK):
        window += chunk
        ends = [at + len(text) for text in spellings if (at := window.find(text)) >= 0]
        if ends:
            return size + min(ends), lines + window.count(b"\n", 0, min(ends))
        done = max(0, len(window) - len(spellings[1]))
        size, lines = size + done, lines + window.count(b"\n", 0, done)
        window = window[done:]
    return None


def too_large(start: bytes | bytearray = b"", size: int | None = None) -> str:
    """Say that a record is over MAX_RECORD_BYTES, and what it is if its start tells."""
    limit = f"over the limit of {MAX_RECORD_BYTES:,} bytes for a document"
    limit = limit if size is None else f"{size:,} bytes, {limit}"
    return f"NUL bytes (a binary file, or UTF-16?), {limit}" if start.startswith(b"\0") else limit


def _chunks(span: Span) -> Iterator[bytes]:
    if is_compressed(span.path):
        with opened(span.path) as source:
            while chunk := source.read(CHUNK):
                yield chunk
        return
    with span.path.open("rb") as handle:
        handle.seek(span.start)
        left = span.stop - span.start
        while left and (chunk := handle.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk
