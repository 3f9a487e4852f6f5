"""Data sets of the Hugging Face hub, or in its formats on the disk, through `datasets`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_llm.data.corpus.base import Bad, Conversation, Corpus, Text, Unit
from lit_llm.data.corpus.conversations import conversation
from lit_llm.data.corpus.jsonl import text_field

ROWS_PER_UNIT = 20_000


class HuggingFaceDataset(Corpus):
    """One split of a data set.

    Args:
        name: name on the hub, or a folder: one that `save_to_disk` wrote, or with data files
        config: which variant, where there are several
        split: which split
        field: the column with the text; `messages`, or `prompt` or `instruction` with
            conversations=True, is found by itself
        streaming: read from the network without storing the whole. It is read twice, so it has
            to be the same both times: the newest commit is looked up unless `revision` is a commit
        revision: a commit, branch or tag
        conversations: rows are conversations, as `Conversations` reads them
        limit: read only so many rows, the first ones
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        split: str = "train",
        field: str = "text",
        streaming: bool = False,
        revision: str | None = None,
        conversations: bool = False,
        limit: int | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.split = split
        self.field = None if conversations else field
        self.streaming = streaming
        self.revision = revision
        self.limit = limit

    def units(self) -> list[Unit]:
        """Runs of rows; of a stream, its files.

        Raises:
            ValueError: the data set cannot be loaded, or lacks the split or the column.
        """
        revision = self._commit() if self.streaming else self.revision
        data = self._load(revision)
        columns = data.column_names
        if self.field and columns and self.field not in columns:
            raise ValueError(
                f"{self.name} has no column {self.field!r}: its columns are {', '.join(columns)}"
            )
        name = Path(self.name).name if Path(self.name).exists() else self.name
        label = f"{name}/{self.config or 'default'}/{self.split}"
        if self.streaming:
            return self._stream_units(data, label, revision)
        total = len(data) if self.limit is None else min(self.limit, len(data))
        if not total:
            raise ValueError(f"{label} has no rows: choose another split")
        return [
            RowsUnit(label, data, start, min(start + ROWS_PER_UNIT, total), self.field)
            for start in range(0, total, ROWS_PER_UNIT)
        ]

    def _load(self, revision: str | None) -> Any:
        import datasets

        folder = Path(self.name)
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
                data = datasets.load_from_disk(self.name)
                if isinstance(data, datasets.DatasetDict):
                    data = data[self.split]
                return data.to_iterable_dataset() if self.streaming else data
            return datasets.load_dataset(
                self.name,
                self.config,
                split=self.split,
                streaming=self.streaming,
                revision=revision,
            )
        except Exception as error:  # datasets raises some twenty kinds, of four libraries
            raise ValueError(
                f"cannot load {self.name} (config {self.config}, split {self.split}):\n"
                f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            ) from error

    def _commit(self) -> str | None:
        """Pin a stream to one commit."""
        if Path(self.name).exists():
            return self.revision
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self.name, revision=self.revision).sha
        except Exception as error:  # no network, no such data set, no permission
            raise ValueError(
                f"cannot look up the newest commit of {self.name}: {type(error).__name__}\n"
                "a stream is read twice and must be pinned: check the name and the network"
            ) from error

    def _stream_units(self, data: Any, label: str, revision: str | None) -> list[Unit]:
        folder = Path(self.name)
        state = revision or _hash_folder(folder)
        shards = 1 if self.limit is not None else data.num_shards
        return [
            StreamUnit(label, data, index, shards, state, self.limit, self.field)
            for index in range(shards)
        ]


@dataclass(frozen=True)
class RowsUnit(Unit):
    """Rows start to stop - 1 of a data set on the disk; pickles as the paths of its files."""

    label: str
    data: Any  # a datasets.Dataset
    start: int
    stop: int
    field: str | None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The data set and its rows."""
        return f"{self.label} [{self.start}:{self.stop}]"

    def fingerprint(self) -> str:
        """SHA-256 of the rows' values; `datasets`' own is of how they were made."""
        digest = hashlib.sha256(f"{self.field} {self.data.column_names}".encode())
        for source, row in self._rows():
            digest.update(f"{source} {row!r}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()

    def read(self) -> Iterator[Text | Conversation | Bad]:
        """Yield one record per row."""
        for source, row in self._rows():
            yield _record(row, self.field, source)

    def _rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        data = self.data.select_columns([self.field]) if self.field else self.data
        for index in range(self.start, self.stop, 256):
            batch = data[index : min(index + 256, self.stop)]
            for row in range(len(next(iter(batch.values())))):
                values = {key: column[row] for key, column in batch.items()}
                yield f"{self.label}:{index + row + 1}", values


@dataclass(frozen=True)
class StreamUnit(Unit):
    """One of the files that a stream reads."""

    label: str
    data: Any  # a datasets.IterableDataset
    index: int
    shards: int
    state: str
    limit: int | None
    field: str | None

    @property
    def name(self) -> str:  # type: ignore[override]
        """The data set and the number of the file."""
        return f"{self.label} stream {self.index + 1} of {self.shards}"

    def fingerprint(self) -> str:
        """Hash of the arguments and the commit, for reading everything twice is the alternative."""
        state = f"{self.name} {self.state} {self.limit} {self.field}"
        return hashlib.sha256(state.encode()).hexdigest()

    def read(self) -> Iterator[Text | Conversation | Bad]:
        """Yield one record per row."""
        data = self.data if self.shards == 1 else self.data.shard(self.shards, self.index)
        data = data if self.limit is None else data.take(self.limit)
        for number, row in enumerate(data, start=1):
            yield _record(row, self.field, f"{self.name}:{number}")


def _record(row: dict[str, Any], field: str | None, source: str) -> Text | Conversation | Bad:
    return text_field(row, field, source) if field else conversation(row, source)


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"\n{path.relative_to(folder).as_posix()}\n".encode())
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
