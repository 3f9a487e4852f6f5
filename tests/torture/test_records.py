"""Row 8: bad records among good ones, in every format that text comes in."""

import gzip
import json
import re
from itertools import pairwise, product

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_llm.data.prepare import open_prepared
from lit_llm.data.shards import Shards
from tests.torture.rows import row

GOOD, EACH = 3000, 20
LIMIT = 2**17  # instead of 64 MiB
BOM = b"\xef\xbb\xbf"
FORMATS = ("jsonl.gz", "parquet", "txt", "jsonl")
MODES = ("skip", "error", "share")


def good_text(i: int) -> str:
    """Odd, and yet fine: what looks bad at a glance must not be lost."""
    odd = ("", " ", "é漢", "\t", "\u2028", "👩‍👩‍👧", "\ufffd", "\x1b[0m", "a\rb", " \ufeff")
    return f"record {i}{odd[i % len(odd)]} says {'so ' * (i % 9)}{i * 7919}"


# Kinds of bad record: (bytes of the line, what the reason says). `i` is 0 to 19.

UTF8 = {
    "a byte that no UTF-8 has": lambda i: (b"word %d \xff word" % i, "invalid UTF-8: byte 0xff"),
    "Latin-1": lambda i: (f"café {i} crème".encode("latin-1"), "invalid UTF-8: byte 0xe9"),
    "half a character at the end": lambda i: ("漢".encode()[:2].rjust(i + 5), "invalid UTF-8"),
    "a surrogate, encoded": lambda i: (b"%d \xed\xa0\xbd\xed\xb8\x80" % i, "invalid UTF-8"),
    "NUL": lambda i: (b"zero %d \0 byte" % i, "NUL"),
    "huge": lambda i: (b"x" * (LIMIT + 1 + i), "over the limit"),
}
LINES = UTF8 | {
    "a continuation alone": lambda i: (b"%d \x80\xbf" % i, "invalid UTF-8: byte 0x80"),
    "an overlong form": lambda i: (b"%d \xc0\xaf" % i, "invalid UTF-8: byte 0xc0"),
    "beyond Unicode": lambda i: (b"%d \xf4\x90\x80\x80" % i, "invalid UTF-8: byte 0xf4"),
    "five bytes long": lambda i: (b"%d \xf8\x88\x80\x80\x80" % i, "invalid UTF-8: byte 0xf8"),
    "UTF-16": lambda i: (f"wide {i}".encode("utf-16-le"), "NUL"),
    "UTF-16 with its mark": lambda i: (f"wide {i}".encode("utf-16"), "invalid UTF-8: byte 0xff"),
    "UTF-32": lambda i: (f"wider {i}".encode("utf-32-be"), "NUL"),
    "a byte order mark inside": lambda i: (BOM + b"joined %d" % i, "byte order mark inside"),
    "white space that is not ASCII": lambda i: ("\u3000\xa0".encode() * (i + 1), "empty text"),
}
OBJECTS = {
    "bad UTF-8": lambda i: (f'{{"text": "café {i}"}}'.encode("latin-1"), "invalid UTF-8"),
    "NUL": lambda i: (b'{"text": "%d %s"}' % (i, (b"\\u0000", b"\0")[i % 2]), "NUL"),
    "a lone surrogate": lambda i: (b'{"text": "%d \\ud83d."}' % i, "lone surrogate U\\+D83D"),
    "cut": lambda i: (b'{"text": "and then %d' % i, "broken JSON: Unterminated string"),
    "of a wrong type": lambda i: (
        b'{"text": %s}' % (b"%d" % i, b"true", b"[1]", b"{}", b"1e9")[i % 5],
        "field 'text' is (a number|a boolean|a list|an object), not a text",
    ),
    "without the field": lambda i: (b'{"txt": "%d"}' % i, r"no field 'text' \(there are: 'txt'"),
    "empty": lambda i: (b'{"text": "%s"}' % (b"", b" ", b"\\n", b"\\u00a0")[i % 4], "empty text"),
    "deeply nested": lambda i: (b'{"text": ' + (b"[", b'{"a":')[i % 2] * 9000, "broken JSON: maxi"),
    "huge": lambda i: (b'{"text": "%s"}' % (b"x" * (LIMIT + i)), "over the limit"),
    "a byte order mark inside": lambda i: (BOM + b'{"text": "%d"}' % i, "byte order mark inside"),
    "UTF-16": lambda i: (f'{{"text": "{i}"}}'.encode("utf-16-le"), "NUL byte"),
    "with a key twice": lambda i: (b'{"text": "%d", "text": ""}' % i, "'text' is there twice"),
    "two objects": lambda i: (b'{"text": "%d"}{"text": "b"}' % i, "broken JSON: Extra data"),
    "null": lambda i: ((b'{"text": null}', b"null")[i % 2], "null"),
    "no object": lambda i: (
        (b'["%d"]', b'"%d"', b"%d", b"0.%d")[i % 4] % i,
        "(a list|a text|a number) instead of an object",
    ),
}
VALUES = UTF8 | {
    "null": lambda i: (None, "is null, not a text"),
    "empty": lambda i: (b"", "empty text"),
    "white space": lambda i: (" \n\u3000".encode() * (i + 1), "empty text"),
}
TYPES = {
    "a number": list(range(EACH)),
    "a boolean": [i % 2 == 0 for i in range(EACH)],
    "bytes": [b"%d" % i for i in range(EACH)],
    "a list": [[str(i)] for i in range(EACH)],
    "an object": [{"a": i} for i in range(EACH)],
    "a datetime": [pa.scalar(10**15 + i, pa.timestamp("us")).as_py() for i in range(EACH)],
}
assert len(LINES) == len(OBJECTS) == len(VALUES) + len(TYPES) == 15


def mixed(draw, good, kinds):
    """Records in a random order; for each None, or what its reason must say."""
    bad = [kind(i) for kind in kinds.values() for i in range(EACH)]
    records = [(record, None) for record in good] + bad
    draw.shuffle(records)
    return records


def write_lines(folder, draw, kind):
    """Three files, each with a byte order mark, one with CRLF and one without a last newline."""
    if kind == "txt":
        records = mixed(draw, [good_text(i).encode() for i in range(GOOD)], LINES)
    else:
        text = [json.dumps({"n": i, "text": good_text(i)}).encode() for i in range(GOOD)]
        records = mixed(draw, text, OBJECTS)
    expected = {}
    for index, name in enumerate(("a", "b", "c")):
        lines, file = records[index::3], f"{name}.{kind}"
        data = BOM + (b"\n", b"\r\n", b"\n")[index].join(line for line, _ in lines) + b"\n"[index:]
        (folder / file).write_bytes(gzip.compress(data, 1) if kind.endswith("gz") else data)
        expected |= {f"{file}:{n}": reason for n, (_, reason) in enumerate(lines, 1) if reason}
    return expected


def write_parquet(folder, draw):
    """A column of text that nobody has checked, in two files, and six that are no text at all."""
    records = mixed(draw, [good_text(i).encode() for i in range(GOOD)], VALUES)
    expected = {}
    for index in range(2):
        rows, file = records[index::2], f"{index}.parquet"
        array = pa.array([value for value, _ in rows], pa.binary())
        text = pa.Array.from_buffers(pa.utf8(), len(rows), array.buffers())
        pq.write_table(pa.table({"text": text}), folder / file, row_group_size=500)
        expected |= {f"{file}:{n}": reason for n, (_, reason) in enumerate(rows, 1) if reason}
    for kind, values in TYPES.items():
        file = f"{kind}.parquet"
        pq.write_table(pa.table({"text": values}), folder / file)
        expected |= {f"{file}:{n + 1}": f"'text' is {kind}, not a text" for n in range(EACH)}
    return expected


@pytest.fixture
def small_limit(monkeypatch):
    for module in ("clean", "corpus.lines", "corpus.jsonl", "corpus.json_list", "corpus.text"):
        monkeypatch.setattr(f"lit_llm.data.{module}.MAX_RECORD_BYTES", LIMIT)


@row(8)
def test_300_bad_records_of_15_kinds_are_reported_and_3000_good_ones_kept(
    trials, draw, cli, tmp_path, small_limit
):
    cases = [(kind, mode) for mode, kind in product(MODES, FORMATS)]
    for trial in trials(full=12, fast=2):
        with trial:
            kind, mode = cases[trial.number]
            folder = tmp_path / f"{kind}-{mode}"
            folder.mkdir()
            parquet = kind == "parquet"
            expected = write_parquet(folder, draw) if parquet else write_lines(folder, draw, kind)
            assert len(expected) == 300
            cache = tmp_path / f"cache-{kind}-{mode}"
            finished = cli(*arguments(folder, cache, kind, mode))
            if mode == "skip":
                assert finished.code == 0, finished.err
                (prepared,) = (cache / "prepared").iterdir()
                same_text(prepared)
                same_reasons(prepared, expected)
                assert "300 bad records left out (9.09%)" in finished.out
                continue
            assert finished.code == 2
            assert not (cache / "prepared").exists()
            error = finished.err[finished.err.index("error: ") :].splitlines()
            assert len(error) <= 3
            source, reason = error[0].removeprefix("error: ").split(": ", 1)
            first = min(expected, key=lambda s: (s.split(":")[0], int(s.split(":")[1])))
            assert source == first
            assert re.search(expected[first], reason)
            if mode == "share":
                assert "300 records (9.1%) are bad, max_bad_share=0.09" in error[1]


def arguments(folder, cache, kind, mode):
    part = {"txt": "text", "jsonl": "jsonl", "jsonl.gz": "jsonl", "parquet": "parquet"}[kind]
    more = ["--data.corpus.document=line", "--data.val_split=documents"] if kind == "txt" else []
    return [
        *("prepare", "-c", f"configs/data/{part}.yaml", f"--data.corpus.path={folder}"),
        *(f"--data.cache_dir={cache}", "--data.prepare_workers=0", "--data.val_fraction=0.1"),
        *("--data.tokenizer.vocab_size=300", "--data.tokenizer_bytes=20000"),
        f"--data.on_bad={'error' if mode == 'error' else 'skip'}",
        f"--data.max_bad_share={0.09 if mode == 'share' else 0.1}",
        *more,
    ]


def same_text(folder):
    prepared = open_prepared(folder)
    prepared.verify()
    found = []
    for split in map(Shards, (prepared.train, prepared.val)):
        tokens, starts = split.tokens(0, split.n_tokens), split.starts.tolist()
        for start, stop in pairwise(starts):
            found.append(prepared.tokenizer.decode(tokens[start:stop].tolist()))
    assert sorted(found) == sorted(good_text(i) for i in range(GOOD))


def same_reasons(folder, expected):
    listed = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    reasons = {record["source"]: record["reason"] for record in listed}
    assert len(listed) == 300
    assert reasons.keys() == expected.keys()
    for source, pattern in expected.items():
        assert re.search(pattern, reasons[source]), (source, pattern, reasons[source][:200])
