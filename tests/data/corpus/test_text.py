import pytest

from lit_llm.data.corpus import TextFiles, lines, text
from lit_llm.data.corpus.base import Bad, Text

DATA = b"\xef\xbb\xbfone\r\ntwo\n\n \n\nthree\xc3\xa9\n"


def read(path, **settings):
    return [record for unit in TextFiles(path, **settings).units() for record in unit.read()]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.txt").write_bytes(DATA)
    return tmp_path / "a.txt"


def test_a_file_is_one_document(path):
    assert read(path) == [Text("one\ntwo\n\n \n\nthreeé\n", "a.txt")]


def test_each_line_is_a_document_and_blank_ones_are_passed_over(path):
    expected = [Text("one", "a.txt:1"), Text("two", "a.txt:2"), Text("threeé", "a.txt:6")]
    assert read(path, document="line") == expected


def test_documents_stand_between_separators(path):
    expected = [Text("one\ntwo", "a.txt:1"), Text("threeé\n", "a.txt:6")]
    assert read(path, document="separator") == expected
    assert [t.text for t in read(path, document="separator", separator="e")] == [
        "on",
        "\ntwo\n\n \n\nthr",
        "é\n",
    ]


def test_invalid_utf8_spoils_its_own_line_only(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\nalso\n")
    assert read(tmp_path, document="line") == [
        Text("good", "a.txt:1"),
        Bad("a.txt:2", "invalid UTF-8: byte 0xff at 1"),
        Text("also", "a.txt:3"),
    ]


def test_a_byte_order_mark_inside_a_file_is_bad_and_at_its_start_is_not(tmp_path):
    bom = b"\xef\xbb\xbf"
    (tmp_path / "a.txt").write_bytes(bom + b"good\r\n" + bom + b"joined\nalso\n")
    assert read(tmp_path, document="line") == [
        Text("good", "a.txt:1"),
        Bad("a.txt:2", "byte order mark inside the file (several files joined?)"),
        Text("also", "a.txt:3"),
    ]


def test_a_file_too_large_for_a_document_is_bad_and_says_what_to_do(path, monkeypatch):
    monkeypatch.setattr(text, "MAX_RECORD_BYTES", 5)
    monkeypatch.setattr(lines, "MAX_RECORD_BYTES", 5)
    (bad,) = read(path)
    reason = "24 bytes, over the limit of 5 bytes for a document: choose document=line or separator"
    assert bad == Bad("a.txt", reason)
    assert [type(record) for record in read(path, document="line")] == [Text, Text, Bad]


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="document='word': give file, line or separator"):
        TextFiles("x", document="word")
    with pytest.raises(ValueError, match="separator='' separates nothing"):
        TextFiles("x", document="separator", separator="")
