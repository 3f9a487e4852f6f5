"""Compressed files are read as plain ones, in little memory; a broken stream is a bad record."""

import bz2
import gzip
import lzma
import random
import tracemalloc
import zipfile

import pyarrow as pa
import pytest

from lit_llm.data.corpus import Conversations, Jsonl, TextFiles, lines
from lit_llm.data.corpus.base import Bad, Text
from lit_llm.data.corpus.compressed import SUFFIXES, Damaged, opened, suffix


def zstandard(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


def write(path, data):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/inside.jsonl", data)
    else:
        path.write_bytes(PACK[path.suffix](data))
    return path


def read(corpus):
    return [record for unit in corpus.units() for record in unit.read()]


@pytest.fixture
def noise():
    """Lines that hardly compress, 300 KB."""
    draw = random.Random(1)
    return [f'{{"text": "{draw.getrandbits(600):x}"}}'.encode() for _ in range(1900)]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_records_are_those_of_the_plain_file(tmp_path, kind, noise):
    data = b"\xef\xbb\xbf" + b"\r\n".join([*noise, b'{"text": 3}', *noise[:5]])
    (tmp_path / "plain.jsonl").write_bytes(data)
    plain = read(Jsonl(tmp_path))
    (tmp_path / "plain.jsonl").unlink()
    write(tmp_path / f"a.jsonl{kind}", data)
    packed = read(Jsonl(tmp_path))
    assert len(plain) == 1906
    assert [vars(record) | {"source": ""} for record in packed] == [
        vars(record) | {"source": ""} for record in plain
    ]
    assert packed[1900] == Bad(f"a.jsonl{kind}:1901", "field 'text' is a number, not a text")
    assert [text.text for text in read(TextFiles(tmp_path, glob="*.jsonl"))] == [
        data.decode("utf-8-sig").replace("\r\n", "\n")
    ]


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_stream_that_is_cut_keeps_the_lines_before_and_reports_one_bad_record(
    tmp_path, kind, share, noise
):
    path = write(tmp_path / f"a.jsonl{kind}", b"\n".join(noise))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    (tmp_path / "b.jsonl").write_text('{"text": "the next file"}')
    *good, bad, last = read(Jsonl(tmp_path))
    assert last == Text("the next file", "b.jsonl:1")
    assert isinstance(bad, Bad)
    assert bad.source.startswith(f"a.jsonl{kind}")
    assert bad.reason.startswith(f"damaged {kind} (")
    assert bad.reason.endswith("; the rest is not read")
    expected = [line.decode()[10:-2] for line in noise]
    assert [record.text for record in good] == expected[: len(good)]
    assert read(Jsonl(tmp_path)) == [*good, bad, last]
    if kind == ".gz":  # the others unpack block by block: bz2 900 KB, xz and zstd some MB
        assert len(good) > len(noise) * share - 250
        assert bad.source == f"a.jsonl.gz:{len(good) + 1}"


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("what", [b"this is no archive at all", b"\0" * 5000])
def test_a_file_that_only_has_the_name_is_one_bad_record(tmp_path, kind, what):
    (tmp_path / f"a.jsonl{kind}").write_bytes(what)
    (bad,) = read(Jsonl(tmp_path))
    assert isinstance(bad, Bad)
    assert f"damaged {kind}" in bad.reason
    (bad,) = read(Conversations(tmp_path))
    assert f"damaged {kind}" in bad.reason


def test_an_archive_of_several_files_is_refused_by_a_bad_record(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("b", "x")
    (bad,) = read(Jsonl(tmp_path))
    assert "2 files in it, one is needed: unpack it" in bad.reason


def test_conversations_are_read_from_packed_lists_and_packed_lines(tmp_path):
    one = b'{"prompt": "hi", "response": "ho"}'
    write(tmp_path / "a.json.gz", b"[" + one + b", " + one + b"]")
    write(tmp_path / "b.jsonl.xz", one + b"\n" + one)
    assert [record.source for record in read(Conversations(tmp_path))] == [
        "b.jsonl.xz:1",
        "b.jsonl.xz:2",
        "a.json.gz:1",
        "a.json.gz:1",
    ]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_bomb_is_never_held_unpacked(tmp_path, kind, monkeypatch):
    """30 MB of one letter in some KB: as a line, and as a whole file."""
    monkeypatch.setattr("lit_llm.data.corpus.jsonl.MAX_RECORD_BYTES", 2**20)
    monkeypatch.setattr("lit_llm.data.corpus.text.MAX_RECORD_BYTES", 2**20)
    monkeypatch.setattr("lit_llm.data.corpus.lines.MAX_RECORD_BYTES", 2**20)
    path = write(tmp_path / f"a.jsonl{kind}", b"x" * 30_000_000 + b'\n{"text": "after"}')
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    bomb, after = read(Jsonl(tmp_path))
    (file,) = read(TextFiles(tmp_path, glob="*.jsonl"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bomb.reason == file.reason.split(":")[0] == lines.too_large()
    assert after == Text("after", f"a.jsonl{kind}:2")
    assert peak < 16_000_000  # xz wants 8 MB for itself


def test_a_fault_of_the_disk_is_no_bad_record(tmp_path):
    class Broken:
        def read(self, *_):
            raise OSError(5, "Input/output error")

        readable = seekable = tell = lambda self: True
        closed = False

    from lit_llm.data.corpus.compressed import _Unpacked

    with pytest.raises(OSError, match="Input/output error"):
        _Unpacked(Broken(), ".gz").read(10)


def test_what_a_file_is_does_not_depend_on_how_it_is_packed(tmp_path):
    assert [suffix(tmp_path / name) for name in ("a.jsonl", "a.jsonl.gz", "a.tar.xz", "a.gz")] == [
        ".jsonl",
        ".jsonl",
        ".tar",
        "",
    ]
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"twice ") + gzip.compress(b"packed") + b"junk")
    with opened(tmp_path / "a.gz") as source:
        assert source.read(100) == b"twice packed"
        with pytest.raises(Damaged, match="gzip"):
            source.read(100)
