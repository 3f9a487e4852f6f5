"""The file format of prepared tokens.

One folder holds one split:

    manifest.json       format, dtype, counts, the tokenizer's fingerprint, SHA-256 of each file
    starts.bin          int64, documents + 1: where each document begins in the token stream
    00000-tokens.bin    uint16 (vocabularies up to 65,536) or uint32
    00000-mask.bin      uint8, 1 = train on this token; only for conversations

The token stream is the concatenation of all token files; a document never depends on where one
of them ends. All numbers are little-endian, whatever the machine.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lit_llm.data.atomic import new_folder
from lit_llm.data.sealed import sha256

FORMAT = 1
SHARD_TOKENS = 2**28  # 512 MiB as uint16
CHECKED_AT_ONCE = 2**22
OPEN_FILES = 128  # each mapping keeps a file handle, and 1,024 a process is a common limit


class Shards:
    """One prepared split, read only. Nothing is loaded but the manifest; pickles by its path.

    Raises:
        ValueError: the folder is not a complete split, or a file has another size than the
            manifest says. Bits that flipped are found by `verify`, which reads everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        self.n_tokens: int = manifest["n_tokens"]
        self.n_documents: int = manifest["n_documents"]
        self.has_mask: bool = manifest["has_mask"]
        self.vocab_size: int = manifest["vocab_size"]
        self.tokenizer_fingerprint: str = manifest["tokenizer"]
        self._dtype = np.dtype(manifest["dtype"])
        self._borders = np.cumsum([0, *manifest["shards"]])
        self._files = manifest["files"]
        for name, file in self._files.items():
            path = self.folder / name
            size = path.stat().st_size if path.exists() else None
            if size != file["size"]:
                raise ValueError(
                    f"{path}: {'missing' if size is None else f'{size} bytes'}, "
                    f"the manifest says {file['size']}: delete {self.folder} and prepare again"
                )
        self._refuse_other_counts()
        self.starts = _mapped(self.folder / "starts.bin", np.dtype("<i8"))
        self._open: OrderedDict[str, np.ndarray] = OrderedDict()

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Token ids of places start to stop - 1 of the stream, int64."""
        return self._slice("tokens", self._dtype, start, stop).astype(np.int64)

    def mask(self, start: int, stop: int) -> np.ndarray:
        """Which of those tokens are trained on, bool; only where `has_mask`."""
        assert self.has_mask, "this split holds no conversations"
        return self._slice("mask", np.dtype("u1"), start, stop).astype(bool)

    def verify(self) -> None:
        """Read every file and compare its SHA-256 with the manifest.

        Raises:
            ValueError: a file is not what was written.
        """
        for name, file in self._files.items():
            if sha256(self.folder / name) != file["sha256"]:
                raise ValueError(
                    f"{self.folder / name}: SHA-256 differs from the manifest's: "
                    f"delete {self.folder} and prepare again"
                )

    def check(self) -> None:
        """Read every file, and see that the numbers in it are possible.

        A manifest proves that files are what somebody wrote, not that they are tokens: an id that
        the embedding does not have would end a run with a traceback, on a GPU far from its cause.

        Raises:
            ValueError: a document ends before it begins, or an id is not of the vocabulary.
        """
        path = self.folder / "starts.bin"
        for low in range(0, self.n_documents, CHECKED_AT_ONCE):
            if (np.diff(self.starts[low : low + CHECKED_AT_ONCE + 1]) < 0).any():
                raise _impossible(path, "a document ends before it begins")
        if self.starts[0] != 0 or self.starts[-1] != self.n_tokens:
            raise _impossible(path, f"the documents are not {self.n_tokens} tokens")
        for shard, n_tokens in enumerate(np.diff(self._borders)):
            path = self.folder / f"{shard:05d}-tokens.bin"
            for tokens in self._pieces(path, n_tokens):
                if (id := tokens.max()) >= self.vocab_size:
                    reason = f"token id {id} is outside the vocabulary of {self.vocab_size}"
                    raise _impossible(path, reason)

    def all_tokens(self) -> Iterator[np.ndarray]:
        """All token ids in their order, some million at a time, as they are stored.

        They are read, not mapped: pages of a mapped file count as this process's memory.
        """
        for shard, n_tokens in enumerate(np.diff(self._borders)):
            yield from self._pieces(self.folder / f"{shard:05d}-tokens.bin", n_tokens)

    def _pieces(self, path: Path, n_tokens: int) -> Iterator[np.ndarray]:
        if n_tokens:
            with path.open("rb") as handle:
                while len(piece := np.fromfile(handle, self._dtype, CHECKED_AT_ONCE)):
                    yield piece

    def _refuse_other_counts(self) -> None:
        """Refuse a manifest that lists other files than its counts speak of, or other sizes."""
        sizes = {"starts.bin": 8 * (self.n_documents + 1)}
        for shard, n_tokens in enumerate(np.diff(self._borders).tolist()):
            sizes[f"{shard:05d}-tokens.bin"] = n_tokens * self._dtype.itemsize
            if self.has_mask:
                sizes[f"{shard:05d}-mask.bin"] = n_tokens
        if {name: file["size"] for name, file in self._files.items()} != sizes:
            raise _impossible(self.folder / "manifest.json", "its counts are not its files'")

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        return Shards, (self.folder,)

    def _slice(self, kind: str, dtype: np.dtype[Any], start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= self.n_tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.n_tokens} in {self.folder}")
        first = int(np.searchsorted(self._borders, start, side="right")) - 1
        parts = []
        while start < stop:
            low, high = int(self._borders[first]), int(self._borders[first + 1])
            end = min(stop, high)
            if start < end:
                parts.append(self._file(first, kind, dtype)[start - low : end - low])
            start, first = end, first + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])

    def _file(self, shard: int, kind: str, dtype: np.dtype[Any]) -> np.ndarray:
        name = f"{shard:05d}-{kind}.bin"
        if name not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)
            self._open[name] = _mapped(self.folder / name, dtype)
        self._open.move_to_end(name)
        return self._open[name]


def _mapped(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """A file as an array. A view of it: each slice of a memmap itself costs 3 microseconds."""
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


def _impossible(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} holds no tokens: {reason}. Delete {path.parent} and prepare again")


class ShardWriter:
    """Writes one split; at the end of the `with` block it appears, complete, at `folder`.

    Args:
        folder: where the split goes; its parent is made
        vocab_size: ids are below this; decides the dtype
        tokenizer_fingerprint: of the tokenizer that made the ids
        has_mask: store which tokens are trained on
        shard_tokens: a new file begins with the document after this many tokens
        durable: wait until all is on the disk; see `new_folder`
    """

    def __init__(
        self,
        folder: Path,
        *,
        vocab_size: int,
        tokenizer_fingerprint: str,
        has_mask: bool = False,
        shard_tokens: int = SHARD_TOKENS,
        durable: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.dtype = np.dtype("<u2" if vocab_size <= 2**16 else "<u4")
        self.n_tokens = 0
        self.n_documents = 0
        self._head = {
            "format": FORMAT,
            "tokenizer": tokenizer_fingerprint,
            "vocab_size": vocab_size,
            "dtype": self.dtype.str,
            "has_mask": has_mask,
        }
        self._durable = durable
        self._vocab_size = vocab_size
        self._has_mask = has_mask
        self._shard_tokens = shard_tokens
        self._shards: list[int] = []
        self._files: dict[str, _File] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ShardWriter:
        if self.folder.exists():
            raise ValueError(f"{self.folder} exists already: delete it, or write somewhere else")
        self._temporary = self._stack.enter_context(new_folder(self.folder, durable=self._durable))
        self._add("starts.bin", np.zeros(1, "<i8"))
        return self

    def append(self, ids: Sequence[int] | np.ndarray, mask: Sequence[bool] | None = None) -> None:
        """Add one document.

        Args:
            ids: its tokens, bos and eos included
            mask: which of them are trained on; None: all of them

        Raises:
            ValueError: it is empty, or an id is not of the vocabulary.
        """
        array = np.asarray(ids, np.int64)
        if not len(array):
            raise ValueError(f"document {self.n_documents} has no tokens: a bos at least is needed")
        if array.min() < 0 or array.max() >= self._vocab_size:
            wrong = array[(array < 0) | (array >= self._vocab_size)][0]
            raise ValueError(
                f"token id {wrong} in document {self.n_documents} is outside the vocabulary "
                f"(vocab_size={self._vocab_size}): the tokenizer's encode and vocab_size disagree"
            )
        assert mask is None or (self._has_mask and len(mask) == len(array))
        if not self._shards or self._shards[-1] >= self._shard_tokens:
            self._shards.append(0)
        shard = f"{len(self._shards) - 1:05d}"
        self._add(f"{shard}-tokens.bin", array.astype(self.dtype))
        if self._has_mask:
            kept = np.ones(len(array), "u1") if mask is None else np.asarray(mask, "u1")
            self._add(f"{shard}-mask.bin", kept)
        self._shards[-1] += len(array)
        self.n_tokens += len(array)
        self.n_documents += 1
        self._add("starts.bin", np.array([self.n_tokens], "<i8"))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        files = {name: file.close() for name, file in self._files.items()}
        if error is None:
            write_manifest(self._temporary, self._head, self._shards, self.n_documents, files)
        self._stack.__exit__(kind, error, trace)

    def _add(self, name: str, array: np.ndarray) -> None:
        if name not in self._files:
            self._files[name] = _File((self._temporary / name).open("wb"), hashlib.sha256())
        data = array.tobytes()
        self._files[name].handle.write(data)
        self._files[name].digest.update(data)


class _File(NamedTuple):
    handle: BinaryIO
    digest: Any

    def close(self) -> dict[str, Any]:
        size = self.handle.tell()
        self.handle.close()
        return {"size": size, "sha256": self.digest.hexdigest()}


def write_manifest(
    folder: Path,
    head: dict[str, Any],
    shards: list[int],
    n_documents: int,
    files: dict[str, dict[str, Any]],
) -> None:
    """Write what `Shards` reads first: the last file of a split."""
    manifest = {
        **head,
        "n_tokens": sum(shards),
        "n_documents": n_documents,
        "shards": shards,
        "files": dict(sorted(files.items())),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a split.

    Raises:
        ValueError: there is none, or another version wrote it.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise ValueError(f"no shards in {folder} (no manifest.json): run python cli.py prepare")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: delete {folder} and prepare again") from None
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}, this version reads {FORMAT}: prepare again")
    return manifest
