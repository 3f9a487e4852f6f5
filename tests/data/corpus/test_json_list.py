import json

import pytest

from lit_llm.data.corpus import json_list
from lit_llm.data.corpus.base import Bad
from lit_llm.data.corpus.json_list import items
from lit_llm.data.corpus.lines import Span


@pytest.fixture(params=[1, 3, 1000])
def read(request, tmp_path, monkeypatch):
    monkeypatch.setattr(json_list, "CHUNK", request.param)

    def read(data):
        path = tmp_path / "a.json"
        path.write_bytes(data)
        return list(items(Span(path, "a.json", 0, len(data), 1)))

    return read


def test_items_equal_those_of_a_list_read_whole(read):
    values = [{"a": "é\n"}, 12, -3.5e7, "x", None, [[], {}], {"b": {"c": [1, 2]}}, True]
    for data in (json.dumps(values), json.dumps(values, indent=2, ensure_ascii=False), " [ ] \n"):
        expected = json.loads(data)
        assert [value for _, value in read(data.encode())] == expected
        assert [value for _, value in read(b"\xef\xbb\xbf" + data.encode())] == expected


def test_sources_are_the_lines_where_items_begin(read):
    assert [source for source, _ in read(b'[\n1,\n\n{"a":\n2}, 3\n]')] == [
        "a.json:2",
        "a.json:4",
        "a.json:5",
    ]


@pytest.mark.parametrize(
    ("data", "good", "reason"),
    [
        (b'[{"a": 1},\n{"a": }, 3]', 1, "broken JSON: Expecting value; the rest is not read"),
        (b'[{"a": 1}\n{"a": 2}]', 1, "broken JSON: no , or ] here"),
        (b'[{"a": 1},\n{"a": 2}', 2, "broken JSON: no , or ] here"),
        (b'[{"a": 1},\n{"a": ', 1, "broken JSON: Expecting value"),
        (b'{"a": 1}', 0, "no JSON list"),
        (b"", 0, "no JSON list"),
    ],
)
def test_a_fault_ends_the_list_after_what_was_good(read, data, good, reason):
    *before, (_, bad) = read(data)
    assert len(before) == good
    assert isinstance(bad, Bad)
    assert bad.reason.startswith(reason)


def test_invalid_utf8_spoils_one_item_only(read):
    values = [value for _, value in read(b'["a", "b\xff", "c"]')]
    assert values == ["a", "b\udcff", "c"]
