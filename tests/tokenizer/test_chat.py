import copy
import random
import unicodedata

import pytest

from lit_llm.tokenizer import (
    ChatTemplate,
    Message,
    SentencePiece,
    load_tokenizer,
    save_tokenizer,
)
from lit_llm.tokenizer.chat import Turn

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


INST = ChatTemplate(
    begin="<s>",
    system=None,
    user=Turn("[INST] ", " [/INST]"),
    assistant=Turn(" so: ", "</s>\n"),
)


def test_roles_in_plain_text_are_encoded_with_the_text_beside_them(tokenizer):
    talk = [Message("user", "who bakes?"), Message("assistant", "anna"), Message("user", "why?")]
    ids, learned = INST.encode(tokenizer, talk)
    first = tokenizer.encode("[INST] who bakes? [/INST] so: anna")
    rest = tokenizer.encode("\n[INST] why? [/INST]")
    assert ids == [BOS, *first, EOS, *rest]
    said = [id for id, flag in zip(ids, learned, strict=True) if flag]
    assert tokenizer.decode(said).endswith("anna")
    assert tokenizer.decode(said).strip() == "anna"  # a token may begin with what is in front
    assert said[-1] == EOS  # and nothing of what follows it


def test_a_prompt_ends_with_what_opens_an_answer(tokenizer):
    prompt = INST.prompt(tokenizer, [Message("user", "who?")])
    assert prompt == [BOS, *tokenizer.encode("[INST] who? [/INST] so: ")]
    assert INST.stop_ids(tokenizer) == {EOS}


def test_words_are_stripped_where_the_template_does(tokenizer):
    stripping = ChatTemplate(strip=True)
    spaced, bare = ([Message("user", text)] for text in (" who?\n", "who?"))
    assert stripping.encode(tokenizer, spaced) == ChatTemplate().encode(tokenizer, bare)


def test_a_default_system_prompt_is_said_where_there_is_none(tokenizer):
    template = ChatTemplate(default_system="be brief")
    asked = [Message("user", "who?")]
    told = [Message("system", "be brief"), *asked]
    assert template.encode(tokenizer, asked) == ChatTemplate().encode(tokenizer, told)
    assert template.encode(tokenizer, told) == ChatTemplate().encode(tokenizer, told)


def test_a_template_comes_back_from_plain_values(tokenizer):
    for template in (ChatTemplate(), INST):
        assert ChatTemplate.from_plain(template.plain()) == template
    with pytest.raises(ValueError, match="no chat template"):
        ChatTemplate.from_plain({"begin": "<s>"})


def test_a_tokenizer_takes_its_template_along(tokenizer, tmp_path):
    given = copy.copy(tokenizer)
    given.chat_template = INST
    save_tokenizer(given, tmp_path)
    assert load_tokenizer(tmp_path).chat_template == INST
    assert given.identity != tokenizer.identity
    assert given.fingerprint == tokenizer.fingerprint
    (tmp_path / "chat_template.json").write_text("{}")
    with pytest.raises(ValueError, match=r"chat_template\.json is damaged"):
        load_tokenizer(tmp_path)


class Composing(SentencePiece):
    """Composes characters before it cuts, as Qwen's tokenizers do."""

    def encode(self, text: str) -> list[int]:
        return super().encode(unicodedata.normalize("NFC", text))


def test_what_is_learned_is_told_rightly_where_characters_are_composed():
    composing = Composing(vocab_size=310).train(["who bakes the bread in this village?"] * 9)
    said = "e\u0301" * 6 + " bakes"  # twelve characters of which six are left
    _, learned = INST.encode(composing, [Message("user", "who?"), Message("assistant", said)])
    header = composing.encode("[INST] who? [/INST] so: ")
    assert not any(learned[: len(header)])
    assert all(learned[len(header) + 1 : -2])
