import pytest

from lit_llm.data.clean import byte_count, check, document_hash
from lit_llm.data.corpus.base import Bad, Conversation, Text
from lit_llm.data.corpus.lines import MAX_RECORD_BYTES
from lit_llm.tokenizer.chat import Message


def chat(*turns):
    return Conversation(tuple(Message(role, content) for role, content in turns), "f:1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty text"),
        (" \n\t", "empty text"),
        ("a\0b", "NUL character"),
        ("ab\ud800c", "lone surrogate U+D800 at character 2"),
        ("x" * (MAX_RECORD_BYTES + 1), "67,108,865 bytes, over the limit of 67,108,864 bytes"),
    ],
    ids=["empty", "blank", "nul", "surrogate", "large"],
)
def test_a_text_that_cannot_be_used_says_why(text, reason):
    bad = check(Text(text, "file:7"))
    assert isinstance(bad, Bad)
    assert bad.source == "file:7"
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize("text", ["a", "\ufeffa", "▁ \t\r\n😀", "\U0010ffff"])
def test_every_other_text_stays_as_it_is(text):
    assert check(Text(text, "f")) == Text(text, "f")


def test_a_conversation_needs_turns_that_end_with_the_assistant():
    good = [
        chat(("user", "a"), ("assistant", "b")),
        chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    ]
    assert [check(record) for record in good] == good
    for wrong in (
        chat(),
        chat(("system", "s")),
        chat(("user", "a")),
        chat(("assistant", "b"), ("user", "a")),
        chat(("user", "a"), ("user", "a"), ("assistant", "b")),
        chat(("user", "a"), ("assistant", "b"), ("system", "s")),
    ):
        assert isinstance(check(wrong), Bad), wrong


def test_a_bad_message_is_named_by_its_role():
    assert check(chat(("user", "a"), ("assistant", " "))) == Bad("f:1", "assistant: empty text")


def test_hashes_are_equal_for_equal_content_only():
    turns = [("user", "a"), ("assistant", "b")]
    records = [
        Text("a", "x:1"),
        Text("a ", "x:1"),
        chat(*turns),
        chat(("user", "ab"), ("assistant", "")),
        chat(("system", "a"), ("assistant", "b")),
        Text('[["user", "a"], ["assistant", "b"]]', "x"),
    ]
    assert len({document_hash(record) for record in records}) == len(records)
    assert document_hash(Text("a", "y:2")) == document_hash(records[0])
    assert document_hash(chat(*turns)) == document_hash(records[2])
    assert len(document_hash(records[0])) == 16


def test_bytes_are_counted_in_utf8_over_all_messages():
    assert byte_count(Text("aé😀", "f")) == 1 + 2 + 4
    assert byte_count(chat(("user", "é"), ("assistant", "b"))) == 3
