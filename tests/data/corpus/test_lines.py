import random
import tracemalloc

import pytest

from lit_llm.data.corpus import lines
from lit_llm.data.corpus.lines import Span, records, split_file, whole


def span(tmp_path, data):
    path = tmp_path / "f"
    path.write_bytes(data)
    return Span(path, "f", 0, len(data), 1)


def read(tmp_path, data, separator=b"\n", max_bytes=100):
    return list(records(span(tmp_path, data), separator, max_bytes))


def test_lines_come_with_their_numbers_and_the_last_needs_no_newline(tmp_path):
    assert read(tmp_path, b"a\n\nbc\nd") == [(1, b"a"), (2, b""), (3, b"bc"), (4, b"d")]
    assert read(tmp_path, b"a\n") == [(1, b"a")]
    assert read(tmp_path, b"") == []


def test_crlf_comes_out_as_lf_and_a_lone_cr_stays(tmp_path):
    assert read(tmp_path, b"a\r\nb\rc\r\n\r") == [(1, b"a"), (2, b"b\rc"), (3, b"\r")]
    assert whole(span(tmp_path, b"a\r\nb\rc")) == b"a\nb\rc"


def test_a_byte_order_mark_is_dropped_at_the_start_of_the_file_only(tmp_path):
    bom = b"\xef\xbb\xbf"
    assert read(tmp_path, bom + b"a\n" + bom + b"b") == [(1, b"a"), (2, bom + b"b")]
    assert whole(span(tmp_path, bom + b"a")) == b"a"
    later = Span(span(tmp_path, b"a\n" + bom + b"b").path, "f", 2, 6, 2)
    assert list(records(later, b"\n", 100)) == [(2, bom + b"b")]
    assert whole(later) == bom + b"b"


def test_pieces_between_separators_are_numbered_by_their_first_line(tmp_path):
    data = b"a\nb\n\nc\r\n\r\nd"
    assert read(tmp_path, data, b"\n\n") == [(1, b"a\nb"), (4, b"c"), (6, b"d")]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("separator", [b"\n", b"\n\n", b"<|>"])
def test_where_chunks_end_makes_no_difference(tmp_path, monkeypatch, chunk, separator):
    draw = random.Random(chunk)
    data = b"".join(draw.choice([b"a", b"b\r", b"\n", b"\r\n", b"<|>", b"<"]) for _ in range(200))
    monkeypatch.setattr(lines, "CHUNK", chunk)
    plain = data.replace(b"\r\n", b"\n")
    pieces = plain.split(separator)
    expected = pieces if pieces[-1] else pieces[:-1]
    got = read(tmp_path, data, separator, 1000)
    assert [piece for _, piece in got] == expected
    at = 0
    for line, piece in got:
        assert line == plain[:at].count(b"\n") + 1
        at += len(piece) + len(separator)


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_a_record_that_is_too_large_is_reported_once_and_passed_over(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(lines, "CHUNK", chunk)
    data = b"ok\n" + b"x" * 50 + b"\nfine\n" + b"y" * 50
    large = lines.too_large()
    assert read(tmp_path, data, b"\n", 10) == [(1, b"ok"), (2, large), (3, b"fine"), (4, large)]


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_a_record_that_is_too_large_and_begins_with_nul_is_called_that(
    tmp_path, monkeypatch, chunk
):
    monkeypatch.setattr(lines, "CHUNK", chunk)
    data = bytes(50) + b"\n\0" + b"x" * 50 + b"\n" + b"x\0" * 50
    first, second, third = (why for _, why in read(tmp_path, data, b"\n", 10))
    limit = "over the limit of 67,108,864 bytes for a document"
    assert first == second == f"NUL bytes (a binary file, or UTF-16?), {limit}"
    assert third == limit
    assert whole(span(tmp_path, bytes(50)), 10) == first.replace("over", "50 bytes, over")


@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
def test_a_separator_that_straddles_chunks_ends_a_record_that_is_too_large(
    tmp_path, monkeypatch, chunk
):
    monkeypatch.setattr(lines, "CHUNK", chunk)
    for length in range(7, 22):  # somewhere the buffer is emptied between the two newlines
        data = b"x" * length + b"\n\nfine\n\nalso"
        large = (1, lines.too_large())
        assert read(tmp_path, data, b"\n\n", 6) == [large, (3, b"fine"), (5, b"also")]


def test_a_gigantic_line_is_never_held_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK", 1000)
    one = span(tmp_path, b"x" * 3_000_000 + b"\nend")
    tracemalloc.start()
    got = list(records(one, b"\n", 5000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == [(1, lines.too_large()), (2, b"end")]
    assert peak < 300_000


@pytest.mark.parametrize("separator", [b"\n", b"\n\n"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize("chunk", [3, 1000])
def test_spans_of_a_file_together_give_the_records_of_the_whole(
    tmp_path, monkeypatch, separator, ends, chunk
):
    monkeypatch.setattr(lines, "CHUNK", chunk)
    draw = random.Random(5)
    blocks = [b"\n".join(b"w" * draw.randrange(1, 30) for _ in range(3)) for _ in range(40)]
    data = b"\n\n".join(blocks).replace(b"\n", ends)
    one = span(tmp_path, data)
    spans = split_file(one.path, "f", separator, 150)
    assert len(spans) > 5
    assert [s.start for s in spans[1:]] == [s.stop for s in spans[:-1]]
    assert (spans[0].start, spans[-1].stop) == (0, len(data))
    together = [record for s in spans for record in records(s, separator, 1000) if record[1]]
    assert together == [r for r in records(one, separator, 1000) if r[1]]


def test_a_file_without_separators_is_one_span(tmp_path):
    one = span(tmp_path, b"x" * 1000)
    assert split_file(one.path, "f", b"\n", 100) == [one]
    empty = span(tmp_path, b"")
    assert split_file(empty.path, "f", b"\n", 100) == [empty]
