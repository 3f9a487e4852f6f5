"""Parquet files, through pyarrow, a row group at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_llm.data.corpus.base import Bad, Conversation, Corpus, Text, Unit
from lit_llm.data.corpus.files import UNIT_BYTES, find_files
from lit_llm.data.corpus.jsonl import text_field

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROWS = 256  # decoded at a time


class Parquet(Corpus):
    """Parquet files with one document per row.

    Args:
        path: a file or a folder
        column: name of the column that holds the text
        glob: which files of a folder
    """

    def __init__(self, path: str | Path, column: str = "text", glob: str = "**/*.parquet") -> None:
        self.path = Path(path)
        self.column = column
        self.glob = glob

    def units(self) -> list[ParquetUnit]:  # type: ignore[override]
        """One unit for some row groups of a file.

        Raises:
            ValueError: a file lacks the column, or is no Parquet file.
        """
        files = find_files(self.path, self.glob)
        return [unit for name, path in files for unit in parquet_units(name, path, (self.column,))]


@dataclass(frozen=True)
class ParquetUnit(Unit):
    """The row groups first to stop - 1 of one file; only the named columns are read."""

    file: str
    path: Path
    columns: tuple[str, ...]
    first: int
    stop: int
    first_row: int

    @property
    def name(self) -> str:  # type: ignore[override]
        """The file and its row groups."""
        return f"{self.file} [{self.first}:{self.stop}]"

    def fingerprint(self) -> str:
        """SHA-256 of the columns' bytes as they are stored, and of their types."""
        digest = hashlib.sha256(f"{self.columns} {self.first_row}".encode())
        file = open_parquet(self.path)
        digest.update(str([file.schema_arrow.field(name) for name in self.columns]).encode())
        with self.path.open("rb") as handle:
            for group in range(self.first, self.stop):
                meta = file.metadata.row_group(group)
                for column in (meta.column(index) for index in range(meta.num_columns)):
                    if column.path_in_schema.split(".")[0] in self.columns:
                        page = column.dictionary_page_offset
                        handle.seek(column.data_page_offset if page is None else page)
                        digest.update(handle.read(column.total_compressed_size))
        return digest.hexdigest()

    def read(self) -> Iterator[Text | Conversation | Bad]:
        """Yield one document per row."""
        for source, row in self.rows():
            yield row if isinstance(row, Bad) else text_field(row, self.columns[0], source)

    def rows(self) -> Iterator[tuple[str, dict[str, Any] | Bad]]:
        """Yield (source, row); rows are counted from 1, as lines are.

        What pyarrow cannot read of a row group is one bad record that says how many rows it has.
        """
        import pyarrow as pa

        file, next_group = open_parquet(self.path), self.first_row
        for group in range(self.first, self.stop):
            number = next_group
            next_group += file.metadata.row_group(group).num_rows
            columns = list(self.columns)
            batches = file.iter_batches(batch_size=ROWS, row_groups=[group], columns=columns)
            try:
                for batch in batches:
                    for row in _plain(batch):
                        source = f"{self.file}:{number}"
                        yield source, row if isinstance(row, dict) else Bad(source, row)
                        number += 1
            except (pa.ArrowException, OSError) as error:
                source = f"{self.file}:{number}"
                reason = str(error).splitlines()[0][:80]
                left = next_group - number
                yield source, Bad(source, f"row group damaged ({reason}): {left} rows are not read")


def parquet_units(
    name: str, path: Path, columns: tuple[str, ...], make: type[ParquetUnit] = ParquetUnit
) -> list[ParquetUnit]:
    """Cut one file into units of about UNIT_BYTES, decoded, at its row groups."""
    file = open_parquet(path)
    if missing := [column for column in columns if column not in file.schema_arrow.names]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}: its columns are "
            f"{', '.join(file.schema_arrow.names[:12])}"
        )
    unit = partial(make, name, path, columns)
    units, first, first_row, row, size = [], 0, 1, 1, 0
    for group in range(file.metadata.num_row_groups):
        meta = file.metadata.row_group(group)
        row += meta.num_rows
        size += meta.total_byte_size
        if size >= UNIT_BYTES or group == file.metadata.num_row_groups - 1:
            units.append(unit(first=first, stop=group + 1, first_row=first_row))
            first, first_row, size = group + 1, row, 0
    return units


def _plain(batch: Any) -> list[dict[str, Any] | str]:
    """The rows of a batch; what is wrong in place of one whose text is not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError as error:
        if len(batch) == 1:
            byte = error.object[error.start]
            return [f"invalid UTF-8: byte 0x{byte:02x} at {error.start}"]
        half = len(batch) // 2
        return _plain(batch.slice(0, half)) + _plain(batch.slice(half))


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file; pyarrow takes 0.1 s to import and comes only now.

    Raises:
        ValueError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet file: {str(error).splitlines()[0]}") from None
