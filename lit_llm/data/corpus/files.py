"""From a path to units: finding files, cutting big ones, grouping small ones."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lit_llm.data.corpus.base import Bad, Conversation, Text, Unit
from lit_llm.data.corpus.compressed import SUFFIXES, Damaged, is_compressed
from lit_llm.data.corpus.lines import Span, split_file

UNIT_BYTES = 32 * 2**20  # some seconds of encoding on one core
SMALL_FILE = 256 * 2**10  # smaller ones share a unit: 10,000 tiny files need no 10,000 tasks
GROUPS_END = 64  # one small file in so many ends its group


@dataclass(frozen=True)
class FileUnit(Unit):
    """Some spans of files. Subclasses add how to read one, as fields and `read_span`."""

    spans: tuple[Span, ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        """The file; of a big one also the bytes, of a group the first and their number."""
        first = self.spans[0]
        if len(self.spans) > 1:
            return f"{first.name} and {len(self.spans) - 1} more"
        cut = first.start > 0 or first.stop < first.path.stat().st_size
        return f"{first.name} [{first.start}:{first.stop}]" if cut else first.name

    def settings(self) -> str:
        """Return what besides the bytes determines the records."""
        return ""

    def fingerprint(self) -> str:
        """SHA-256 of the names, the settings and the bytes."""
        digest = hashlib.sha256(self.settings().encode())
        for span in self.spans:
            digest.update(f"\n{span.name}:{span.first_line}:{span.stop - span.start}\n".encode())
            try:
                self._hash(span, digest)
            except OSError as error:
                raise ValueError(
                    f"cannot read {span.path}: {error.strerror}\n"
                    "give it the right permissions, or leave it out with corpus.glob"
                ) from None
        return digest.hexdigest()

    def _hash(self, span: Span, digest: hashlib._Hash) -> None:
        with span.path.open("rb") as handle:
            handle.seek(span.start)
            left = span.stop - span.start
            while left and (chunk := handle.read(min(left, 2**20))):
                digest.update(chunk)
                left -= len(chunk)

    def read(self) -> Iterator[Text | Conversation | Bad]:
        """Yield the records of one span after another."""
        for span in self.spans:
            try:
                yield from self.read_span(span)
            except Damaged as damage:
                source = span.name if damage.line is None else f"{span.name}:{damage.line}"
                yield Bad(source, f"damaged {span.path.suffix} ({damage}); the rest is not read")

    @abstractmethod
    def read_span(self, span: Span) -> Iterator[Text | Conversation | Bad]:
        """Yield the records of one span."""


U = TypeVar("U", bound=FileUnit)


def find_files(path: Path, glob: str, *, compressed: bool = False) -> list[tuple[str, Path]]:
    """List (name inside the corpus, path), sorted by name: one file, or those of a folder.

    Args:
        path: a file or a folder
        glob: which files of the folder
        compressed: those too whose name goes on with .gz, .bz2, ...

    Raises:
        ValueError: the path does not exist, or nothing in the folder matches.
    """
    if path.is_file():
        return [(path.name, path)]
    if not path.exists():
        raise ValueError(f"{path} does not exist (looked in {Path.cwd()}): check corpus.path")
    globs = [glob, *(glob + suffix for suffix in SUFFIXES)] if compressed else [glob]
    matches = {file for pattern in globs for file in path.glob(pattern) if file.is_file()}
    found = sorted((file.relative_to(path).as_posix(), file) for file in matches)
    if not found:
        raise ValueError(f"no file in {path} matches {glob!r}: give corpus.glob, such as '**/*.md'")
    return found


def file_units(
    files: list[tuple[str, Path]],
    separator: bytes | None,
    make: Callable[[tuple[Span, ...]], U],
) -> list[U]:
    """Make the units of some files.

    A big file is cut after separators (None: it cannot be cut, nor can a compressed one). Where a
    group of small files ends is decided by the names themselves, so a new file changes only the
    group that it is in.
    """
    units: list[U] = []
    group: list[Span] = []
    group_bytes = 0
    for name, path in files:
        size = path.stat().st_size
        if size >= SMALL_FILE:
            spans = (
                [Span(path, name, 0, size, 1)]
                if separator is None or is_compressed(path)
                else split_file(path, name, separator, UNIT_BYTES)
            )
            units += [make((span,)) for span in spans]
            continue
        group.append(Span(path, name, 0, size, 1))
        group_bytes += size
        ends = hashlib.sha256(name.encode()).digest()[0] % GROUPS_END == 0
        if ends or group_bytes >= UNIT_BYTES:
            units.append(make(tuple(group)))
            group, group_bytes = [], 0
    return [*units, make(tuple(group))] if group else units
