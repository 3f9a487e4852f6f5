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


def test_text_that_is_no_utf8_spoils_its_own_row_only(tmp_path):
    rows = [b"row %d" % i for i in range(1000)]
    rows[700], rows[701] = b"b\xffd", b"\xed\xa0\x80"  # a surrogate as CESU-8 writes it
    column = pa.Array.from_buffers(  # a text column that nobody has checked
        pa.utf8(), 1000, pa.array(rows, pa.binary()).buffers()
    )
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    (unit,) = Parquet(tmp_path).units()
    found = list(unit.read())
    assert found[700:702] == [
        Bad("a.parquet:701", "invalid UTF-8: byte 0xff at 1"),
        Bad("a.parquet:702", "invalid UTF-8: byte 0xed at 0"),
    ]
    good = found[:700] + found[702:]
    assert [text.text for text in good] == [row.decode() for row in rows[:700] + rows[702:]]


def test_a_damaged_row_group_is_one_bad_record_that_counts_its_rows(tmp_path):
    rows = [f"a row with the number {i}" for i in range(40)]
    table = pa.table({"text": rows})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    page = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0).data_page_offset
    data[page : page + 60] = b"\xff" * 60
    (tmp_path / "a.parquet").write_bytes(data)
    (unit,) = Parquet(tmp_path).units()
    found = list(unit.read())
    assert [r.text for r in found if isinstance(r, Text)] == rows[:10] + rows[20:]
    (bad,) = [record for record in found if isinstance(record, Bad)]
    assert bad.source == "a.parquet:11"
    assert bad.reason.startswith("row group damaged (")
    assert bad.reason.endswith("): 10 rows are not read")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, "a number"),
        (b"x", "bytes"),
        (True, "a boolean"),
        ([1], "a list"),
        ({"a": 1}, "an object"),
    ],
)
def test_a_column_of_another_type_is_named_by_its_kind(tmp_path, value, kind):
    pq.write_table(pa.table({"text": [value]}), tmp_path / "a.parquet")
    (unit,) = Parquet(tmp_path).units()
    assert list(unit.read()) == [Bad("a.parquet:1", f"field 'text' is {kind}, not a text")]
