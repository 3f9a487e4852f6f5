import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_llm.data.corpus import Parquet, parquet
from lit_llm.data.corpus.base import Bad, Text

ROWS = [f"row {i}" for i in range(1, 24)]


def write(path, rows=ROWS, other=0):
    table = pa.table({"text": pa.array(rows, pa.string()), "n": [other] * len(rows)})
    pq.write_table(table, path, row_group_size=5)


def test_rows_come_in_order_with_their_numbers_across_units(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "UNIT_BYTES", 1)
    monkeypatch.setattr(parquet, "ROWS", 2)
    write(tmp_path / "a.parquet")
    units = Parquet(tmp_path).units()
    assert [unit.name for unit in units] == [f"a.parquet [{i}:{i + 1}]" for i in range(5)]
    found = [record for unit in units for record in unit.read()]
    assert found == [Text(row, f"a.parquet:{i}") for i, row in enumerate(ROWS, start=1)]


def test_null_is_a_bad_record(tmp_path):
    write(tmp_path / "a.parquet", ["a", None])
    (unit,) = Parquet(tmp_path).units()
    assert list(unit.read())[1] == Bad("a.parquet:2", "field 'text' is null, not a text")


def test_the_fingerprint_follows_its_own_row_groups_and_column_only(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "UNIT_BYTES", 1)

    def prints(rows, other=0):
        write(tmp_path / "a.parquet", rows, other)
        return [unit.fingerprint() for unit in Parquet(tmp_path).units()]

    before = prints(ROWS)
    assert prints(ROWS, other=7) == before
    after = prints([*ROWS[:7], "row X", *ROWS[8:]])
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True, True, True]


def test_a_missing_column_and_a_wrong_file_are_said(tmp_path):
    write(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no column 'body': its columns are text, n"):
        Parquet(tmp_path, column="body").units()
    (tmp_path / "b.parquet").write_text("text")
    with pytest.raises(ValueError, match="is no Parquet file"):
        Parquet(tmp_path / "b.parquet").units()
