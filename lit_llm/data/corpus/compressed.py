"""Compressed files: read as a stream and in bounded memory, as if they were not compressed.

A stream that breaks off is no crash: what came before stays good, and the break is a bad record.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
FAULTS = (
    EOFError,
    OSError,
    NotImplementedError,  # a kind of .zip that the library does not know
    RuntimeError,  # a .zip with a password
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


class Damaged(Exception):
    """A compressed stream makes no sense from here on. Not for users: readers make a `Bad` of it.

    `line` is where, as far as the reader knows.
    """

    line: int | None = None


class Source(Protocol):
    """What a reader needs of an open file."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; less only at the end, none after it."""


def is_compressed(path: Path) -> bool:
    """Whether the name says so."""
    return path.suffix in SUFFIXES


def suffix(path: Path) -> str:
    """What kind of file it is when unpacked: .jsonl of a.jsonl and of a.jsonl.gz."""
    return path.with_suffix("").suffix if is_compressed(path) else path.suffix


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a file to be read from its beginning, unpacked on the way where it is compressed."""
    with path.open("rb") as handle:
        yield _Unpacked(handle, path.suffix) if is_compressed(path) else handle


class _Unpacked:
    """Reads until the stream breaks, and only then says so: nothing before it is lost."""

    def __init__(self, handle: BinaryIO, suffix: str) -> None:
        self._handle = handle
        self._open: Callable[[BinaryIO], Callable[[int], bytes]] = _OPENERS[suffix]
        self._read: Callable[[int], bytes] | None = None
        self._fault: Damaged | None = None

    def read(self, size: int, /) -> bytes:
        pieces: list[bytes] = []
        left = size
        while left and self._fault is None:
            try:
                self._read = self._read or self._open(self._handle)
                piece = self._read(left)
            except FAULTS as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the disk; those of the formats have no number
                self._fault = Damaged(str(error).split("\n")[0][:80] or type(error).__name__)
                break
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        if self._fault is not None and not pieces:
            raise self._fault
        return b"".join(pieces)


def _open_zstandard(handle: BinaryIO) -> Callable[[int], bytes]:
    import pyarrow as pa  # the standard library reads .zst from Python 3.14 on

    stream = pa.CompressedInputStream(pa.PythonFile(handle, "r"), "zstd")
    # A read that meets a fault loses what it has so far: let that be little.
    return lambda size: stream.read(min(size, 2**14))


def _open_zip(handle: BinaryIO) -> Callable[[int], bytes]:
    archive: Any = zipfile.ZipFile(handle)
    files = [name for name in archive.namelist() if not name.endswith("/")]
    if len(files) != 1:
        raise zipfile.BadZipFile(f"{len(files)} files in it, one is needed: unpack it")
    return archive.open(files[0]).read1


# read1 returns what is there before an error; read may lose it.
_OPENERS: dict[str, Callable[[BinaryIO], Callable[[int], bytes]]] = {
    ".gz": lambda handle: gzip.GzipFile(fileobj=handle).read1,
    ".bz2": lambda handle: bz2.BZ2File(handle).read1,
    ".xz": lambda handle: lzma.LZMAFile(handle).read1,  # noqa: SIM115  it has no file of its own to close
    ".zst": _open_zstandard,
    ".zip": _open_zip,
}
