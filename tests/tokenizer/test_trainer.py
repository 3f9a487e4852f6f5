import random
from itertools import islice

import pytest

from lit_llm.tokenizer.trainer import MAX_CHARS, sentences, train_model

WORDS = "the miller bakes a bread and the weaver sells some cloth at the river ".split() * 100
SETTINGS = {
    "vocab_size": 300,
    "model_type": "bpe",
    "split_digits": True,
    "character_coverage": 0.9995,
    "max_train_chars": 10**7,
}


def long_text(characters: str, n: int) -> str:
    return "".join(random.Random(3).choices(characters, k=n))


@pytest.mark.parametrize("characters", ["ab \n", "ab ", "漢字", "\n", " ", "👩e\u0301 "])
def test_sentences_are_short_enough_and_joined_give_the_text(characters):
    text = long_text(characters, 3 * MAX_CHARS + 17)
    parts = list(sentences(text))
    assert "".join(parts) == text
    assert all(0 < len(part) <= MAX_CHARS for part in parts)
    assert len(parts) < 10


def test_text_is_cut_in_front_of_a_line_end_else_of_a_space():
    lines = ("x" * 99 + "\n") * 100
    assert {part[:1] for part in list(sentences(lines))[1:]} == {"\n"}
    words = ("x" * 99 + " ") * 100
    assert {part[:1] for part in list(sentences(words))[1:]} == {" "}


def test_a_long_line_behind_a_line_end_is_cut_all_the_same():
    text = "a\n" + "x" * (2 * MAX_CHARS)
    parts = list(islice(sentences(text), 10))
    assert [len(part) for part in parts] == [1, MAX_CHARS, MAX_CHARS, 1]


def test_characters_that_the_trainer_stumbles_over_only_separate():
    assert list(sentences("a\0b\u2581\u2581c\u2585")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "spoiler", ["\u2585", "\0", "\u2581", "z" * 70_000, "漢" * 70_000, "漢漢 qqq" * 680]
)
def test_what_the_trainer_would_drop_is_learned_from(spoiler):
    """By itself it drops a sentence with U+2585 or of over 4192 bytes, learning no "qqq" here."""
    text = spoiler if "qqq" in spoiler else spoiler + " qqq" * 5000
    assert b"qqq" in train_model([text, *WORDS], **SETTINGS)


def test_text_that_looks_like_control_tokens_and_bytes_does_not_disturb():
    texts = ["<s> </s> <unk> <pad> <user> <0x41> <s><end>" * 20] * 50
    assert b"the" in train_model(texts + WORDS, **SETTINGS)


def test_an_error_in_the_corpus_comes_through():
    def texts():
        yield "fine"
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        train_model(texts(), **SETTINGS)


def test_only_the_sample_is_learned_from():
    texts = ["€" if i == 777 else " ".join(WORDS[:300]) for i in range(900)]
    every_character = SETTINGS | {"character_coverage": 1.0}
    euro = "€".encode()
    assert euro in train_model(texts, **every_character)
    assert euro not in train_model(texts, **every_character | {"max_train_chars": 30_000})
