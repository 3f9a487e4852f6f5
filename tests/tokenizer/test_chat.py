import random

import pytest

from lit_llm.tokenizer import ChatTemplate, Message, SentencePiece

PAD, BOS, EOS, MASK, SYSTEM, USER, ASSISTANT, END = range(1, 9)
SPELLED = ["<pad>", "<s>", "</s>", "<mask>", "<system>", "<user>", "<assistant>", "<end>"]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    texts = ["who bakes the bread in this village? <user> anna does <end>"] * 9
    return SentencePiece(vocab_size=310).train(texts)


@pytest.fixture
def template() -> ChatTemplate:
    return ChatTemplate()


def test_a_conversation_is_written_out_turn_by_turn(tokenizer, template):
    messages = [
        Message("system", "be brief"),
        Message("user", "who bakes?"),
        Message("assistant", "anna"),
        Message("user", "in this village?"),
        Message("assistant", ""),
    ]
    system, who, anna, where = (tokenizer.encode(message.content) for message in messages[:4])
    ids, learned = template.encode(tokenizer, messages)
    assert ids == [
        *[BOS],
        *[SYSTEM, *system, END],
        *[USER, *who, END],
        *[ASSISTANT, *anna, END],
        *[USER, *where, END],
        *[ASSISTANT, END],
    ]
    assert learned == [
        *[False],
        *[False] * (len(system) + 2),
        *[False] * (len(who) + 2),
        *[False, *[True] * len(anna), True],
        *[False] * (len(where) + 2),
        *[False, True],
    ]


def test_a_prompt_and_its_answer_are_the_conversation_that_was_trained_on(tokenizer, template):
    before = [
        Message("system", "be brief "),
        Message("user", " who?\n"),
        Message("assistant", "anna"),
        Message("user", "who bakes?"),
    ]
    answer = " bread 😀"
    whole, learned = template.encode(tokenizer, [*before, Message("assistant", answer)])
    prompt = template.prompt(tokenizer, before)
    assert whole[: len(prompt)] == prompt
    assert whole[len(prompt) :] == [*tokenizer.encode(answer), END]
    assert all(learned[len(prompt) :])
    assert not learned[len(prompt) - 1]


def test_no_text_can_open_a_turn_or_close_one(tokenizer, template):
    draw = random.Random(11)
    parts = [*SPELLED, "<|user|>", "<unk>", "\u2581", " ", "\n", "user", "<", ">", "<0x07>", "\x07"]
    for _ in range(500):
        typed = "".join(draw.choices(parts, k=draw.randint(1, 8)))
        turns = [Message("user", typed), Message("assistant", typed), Message("system", typed)]
        ids, learned = template.encode(tokenizer, turns)
        assert [id for id in ids if id < 9] == [BOS, USER, END, ASSISTANT, END, SYSTEM, END]
        assert sum(learned) == len(tokenizer.encode(typed)) + 1
        assert tokenizer.decode(ids) == typed * 3


def test_an_answer_stops_at_the_end_of_its_turn_or_of_the_document(tokenizer, template):
    assert template.stop_ids(tokenizer) == {END, EOS}


def test_bad_conversations_are_refused(tokenizer, template):
    with pytest.raises(ValueError, match="role 'human' of a message: choose one of system, user"):
        Message("human", "hi")
    for write in template.encode, template.prompt:
        with pytest.raises(ValueError, match="without messages"):
            write(tokenizer, [])
