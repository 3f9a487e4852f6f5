import json

import pytest

from lit_llm.data.clean import check
from lit_llm.data.corpus import Jsonl
from lit_llm.data.corpus.base import Bad, Text


def read(tmp_path, data, field="text"):
    (tmp_path / "a.jsonl").write_bytes(data)
    records = [record for unit in Jsonl(tmp_path, field).units() for record in unit.read()]
    return [check(record) for record in records]


def test_the_text_is_taken_as_it_is(tmp_path):
    text = "a\r\nb\t\u2028 é😀"
    data = b'\xef\xbb\xbf{"id": 1, "text": %s}\r\n\n' % json.dumps(text).encode()
    assert read(tmp_path, data) == [Text(text, "a.jsonl:1")]
    assert read(tmp_path, b'{"body": "x"}', "body") == [Text("x", "a.jsonl:1")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a', "broken JSON: Unterminated string"),
        (b'{"text": "a"} x', "broken JSON: Extra data at character 14"),
        (b'{"text": "a\0b"}', "NUL byte (a binary file, or UTF-16?)"),
        (b'{"text": "a\tb"}', "broken JSON: Invalid control character"),
        (b'\xef\xbb\xbf{"text": "a"}', "byte order mark inside the file"),
        (b'{"text": "a", "text": "b"}', "the key 'text' is there twice"),
        (b'{"text": "a"}{"text": "b"}', "broken JSON: Extra data at character 13"),
        (b'{"text": "a\\u0000b"}', "NUL character"),
        (b'{"text": "a\\ud800b"}', "lone surrogate U+D800 at character 1"),
        (b'{"text": "a\xffb"}', "invalid UTF-8: byte 0xff at 11"),
        (b'["text"]', "a list instead of an object"),
        (b"null", "null instead of an object"),
        (b'{"txt": "a", "id": 3}', "no field 'text' (there are: 'txt', 'id')"),
        (b'{"text": 3}', "field 'text' is a number, not a text"),
        (b'{"text": null}', "field 'text' is null, not a text"),
        (b'{"text": " "}', "empty text"),
        (b"[" * 100_000, "broken JSON: maximum recursion depth"),
        (b'{"text": ' + b"9" * 5000 + b"}", "broken JSON: Exceeds the limit"),
    ],
)
def test_a_bad_line_is_reported_and_the_next_one_read(tmp_path, line, reason):
    first, bad, last = read(tmp_path, b'{"text": "before"}\n' + line + b'\n{"text": "after"}')
    assert (first.text, last.text) == ("before", "after")
    assert isinstance(bad, Bad)
    assert bad.source == "a.jsonl:2"
    assert bad.reason.startswith(reason)
