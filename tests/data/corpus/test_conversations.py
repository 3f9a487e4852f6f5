import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_llm.data.corpus import Conversations
from lit_llm.data.corpus.base import Bad
from lit_llm.data.corpus.conversations import conversation

PAIR = {"prompt": "Who?", "response": "Me."}
TASK = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
    ]
}
EXPECTED = [
    [("user", "Who?"), ("assistant", "Me.")],
    [("user", "Add.\n\n1 2"), ("assistant", "3")],
    [("system", "Be kind."), ("user", "Hi."), ("assistant", "Hello.")],
]


def turns(record):
    return [(message.role, message.content) for message in record.messages]


def read(path):
    return [record for unit in Conversations(path).units() for record in unit.read()]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "lines.json"])
def test_lists_and_lines_are_told_apart(tmp_path, name):
    records = [PAIR, TASK, CHAT]
    text = json.dumps(records) if name == "a.json" else "\n".join(map(json.dumps, records))
    (tmp_path / name).write_text(text)
    assert [turns(record) for record in read(tmp_path)] == EXPECTED


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_form_comes_from_parquet(tmp_path, index):
    record = [PAIR, TASK, CHAT][index]
    pq.write_table(pa.Table.from_pylist([{**record, "id": 1}] * 3), tmp_path / "a.parquet")
    assert [turns(record) for record in read(tmp_path / "a.parquet")] == [EXPECTED[index]] * 3


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_input_adds_nothing_to_the_instruction(empty):
    record = conversation({**TASK, "input": empty}, "f:1")
    assert turns(record) == [("user", "Add."), ("assistant", "3")]
    assert turns(conversation({"instruction": "Add.", "output": "3"}, "f:1")) == turns(record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("text", "a text instead of an object"),
        ({"text": "a"}, "neither messages, nor prompt and response"),
        ({"prompt": "a"}, "neither messages, nor prompt and response"),
        ({"prompt": 3, "response": "a"}, "user: a number, not a text"),
        ({"instruction": "a", "input": [1], "output": "b"}, "user: a list, not a text"),
        ({"messages": "hi"}, "messages is a text, not a list"),
        ({"messages": ["hi"]}, "a message is a text, not an object"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "role 'robot' is none of"),
        ({"messages": [{"role": "user"}]}, "user: null, not a text"),
    ],
)
def test_a_record_of_no_form_says_why(record, reason):
    bad = conversation(record, "f:1")
    assert isinstance(bad, Bad)
    assert bad.reason.startswith(reason)


def test_a_file_or_folder_without_conversations_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"no \.json, \.jsonl or \.parquet in"):
        Conversations(tmp_path).units()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="holds no conversations: its columns are text"):
        Conversations(tmp_path).units()


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_key_that_is_there_twice_is_bad_in_the_record_and_in_a_message(tmp_path, name):
    records = [
        '{"prompt": "a", "prompt": "b", "response": "c"}',
        '{"messages": [{"role": "user", "role": "assistant", "content": "x"}]}',
        json.dumps(PAIR),
    ]
    text = f"[{', '.join(records)}]" if name == "a.json" else "\n".join(records)
    (tmp_path / name).write_text(text)
    prompt, role, good = read(tmp_path)
    assert prompt.reason == "the key 'prompt' is there twice"
    assert role.reason == "the key 'role' is there twice"
    assert turns(good) == EXPECTED[0]
