"""Plain text files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lit_llm.data.corpus.base import Bad, Corpus, Text
from lit_llm.data.corpus.files import FileUnit, file_units, find_files
from lit_llm.data.corpus.lines import BOM, MAX_RECORD_BYTES, Span, records, whole

Document = Literal["file", "line", "separator"]


class TextFiles(Corpus):
    r"""Text files in UTF-8, compressed or not: one, or all of a folder that match.

    Line ends come out as `\n`; a byte order mark at the start of a file is dropped.

    Args:
        path: a file or a folder
        document: what one document is: a whole `file`, a `line`, or what stands between two of
            `separator`; lines and pieces of nothing but white space are passed over
        separator: only for document=separator; "\n\n" is an empty line
        glob: which files of a folder; `**/` means its subfolders too, and a match may be compressed
    """

    def __init__(
        self,
        path: str | Path,
        document: Document = "file",
        separator: str = "\n\n",
        glob: str = "**/*.txt",
    ) -> None:
        if document not in ("file", "line", "separator"):
            raise ValueError(f"document={document!r}: give file, line or separator")
        if document == "separator" and not separator:
            raise ValueError("separator='' separates nothing: give a text, or document=file")
        self.path = Path(path)
        self.document = document
        self.separator = "\n" if document == "line" else separator.replace("\r\n", "\n")
        self.glob = glob

    def units(self) -> list[TextUnit]:  # type: ignore[override]
        """One unit for each file, piece of a big file, or group of small ones."""
        separator = None if self.document == "file" else self.separator.encode()
        files = find_files(self.path, self.glob, compressed=True)
        return file_units(files, separator, lambda spans: TextUnit(spans, separator))


@dataclass(frozen=True)
class TextUnit(FileUnit):
    """Text files, cut into documents at `separator`; None: one document per file."""

    separator: bytes | None

    def settings(self) -> str:
        return repr(self.separator)

    def read_span(self, span: Span) -> Iterator[Text | Bad]:
        if self.separator is None:
            text = whole(span, MAX_RECORD_BYTES)
            if isinstance(text, str):
                yield Bad(span.name, f"{text}: choose document=line or separator")
            else:
                yield decode(text, span.name)
            return
        for line, record in records(span, self.separator, MAX_RECORD_BYTES):
            source = f"{span.name}:{line}"
            if isinstance(record, str):
                yield Bad(source, record)
            elif record.strip():
                yield decode(record, source)


def decode(record: bytes, source: str) -> Text | Bad:
    """Bytes to text; what is not UTF-8 is bad and never replaced by U+FFFD."""
    if record.startswith(BOM):  # that of the file's start is gone by now
        return Bad(source, "byte order mark inside the file (several files joined?)")
    try:
        return Text(record.decode(), source)
    except UnicodeDecodeError as error:
        return Bad(source, f"invalid UTF-8: byte 0x{record[error.start]:02x} at {error.start}")
