import json

import pytest

from lit_llm.data.prompts import Prompt, from_file, from_texts
from lit_llm.tokenizer.chat import Message


def write(tmp_path, *records):
    path = tmp_path / "prompts.jsonl"
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_texts_are_numbered_in_their_order():
    assert from_texts(["b", "a"]) == [Prompt(0, "b"), Prompt(1, "a")]


def test_a_text_file_has_one_prompt_per_line_whatever_its_line_ends(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two \r\n{3}\x0c4")
    assert from_file(path) == [Prompt(0, "one"), Prompt(1, "  two "), Prompt(2, "{3}\x0c4")]


def test_jsonl_holds_prompts_or_chats_with_what_is_known_of_the_answer(tmp_path):
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]
    path = write(
        tmp_path,
        {"prompt": "2 + 2 =", "response": "4", "kind": "sum", "more": 1},
        "",
        {"messages": chat},
    )
    asked, chatted = from_file(path)
    assert (asked.text, asked.expected, asked.kind) == ("2 + 2 =", "4", "sum")
    assert asked.grade(" 4\n")
    assert not asked.grade("44")
    assert chatted == Prompt(1, None, (Message("system", "Be short."), Message("user", "Hi")))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": ', "Expecting value"),
        ("[" * 100_000, "maximum recursion"),
        ("[1]", 'either "prompt" or "messages"'),
        ('{"text": "a"}', 'either "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'either "prompt" or "messages"'),
        ('{"prompt": 3}', '"prompt" must be a text'),
        ('{"prompt": "a", "response": 3}', '"response" must be a text'),
        ('{"messages": []}', "the last of"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "the last of"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "must be a list of"),
        ('{"messages": "a"}', "must be a list of"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, reason):
    path = write(tmp_path, {"prompt": "fine"}, "", line)
    with pytest.raises(ValueError, match=rf"prompts\.jsonl:3: .*{reason}"):
        from_file(path)


def test_invalid_utf8_is_named_by_its_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"fine\n\xff\n")
    with pytest.raises(ValueError, match=r"prompts\.txt:2: .*utf-8"):
        from_file(path)


def test_a_file_that_is_missing_or_empty_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no file .*check data\.file"):
        from_file(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="holds no prompt"):
        from_file(write(tmp_path, "", " "))
