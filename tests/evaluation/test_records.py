import re

import pytest

from lit_llm.evaluation import records
from lit_llm.tokenizer import Message


def test_each_line_is_an_object_and_empty_lines_are_passed_over(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": "1"}\r\n\n{"a": "2"}\n')
    assert records.read_records(file, lambda record: record["a"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "a"}\n{"prompt": ', "a.jsonl:2: Expecting value"),
        (b'{"prompt": "a"}\n\n[1]\n', "a.jsonl:3: a JSON object is needed"),
        (b'{"prompt": "\xff"}\n', "a.jsonl:1: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "a.jsonl:1: "),
        (b'{"promt": "a"}\n', 'one of them; did you mean it by "promt"?'),
        (b'{"text": "a"}\n', "one of them; the line has text"),
        (b'{"prompt": "a", "question": "b"}\n', "a.jsonl:1: "),
        (b'{"prompt": 3}\n', '"prompt" must be a text, got 3'),
        (b'{"messages": "a"}\n', '"messages" must be a list'),
        (b'{"messages": []}\n', "must be the user's"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}\n', "must be the user's"),
        (b"\n \n", "a.jsonl holds no question"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path, content, said):
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        records.read_records(file, records.question)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_looked_for_beside_its_place(tmp_path):
    (tmp_path / "quiz.jsonl").touch()
    with pytest.raises(ValueError, match=r"no file .*quis.jsonl .*did you mean .*/quiz\.jsonl\?"):
        records.read_records(tmp_path / "quis.jsonl", records.question)


def test_a_question_is_a_text_or_a_conversation():
    assert records.question({"question": "a"}) == records.question({"prompt": "a"}) == "a"
    turns = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert records.question({"messages": turns}) == (Message("system", "a"), Message("user", "b"))


def test_fields_are_what_they_should_be():
    assert records.kind({}) is None
    assert records.kind({"kind": None}) is None
    assert records.kind({"kind": "who"}) == "who"
    assert records.texts({"a": ["b", "c"]}, "a") == ["b", "c"]
    for record, said in [
        ({"a": []}, '"a" must be a list of texts'),
        ({"a": ["b", 1]}, '"a" must be a list of texts'),
        ({"b": 1}, '"a" is missing; the line has b'),
        ({}, '"a" is missing; the line is empty'),
    ]:
        with pytest.raises(ValueError, match=said):
            records.texts(record, "a")
