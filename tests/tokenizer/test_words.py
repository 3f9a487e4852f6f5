"""Words that are encoded once, against the library that encodes each text whole."""

import json
import random
import re
from array import array

import pytest

from lit_llm.tokenizer import HuggingFace
from lit_llm.tokenizer import words as module
from lit_llm.tokenizer.words import COARSE, FINE, Words, portions
from tests.tokenizer import made

TEXTS = ["the miller's 17 loaves", "def f(x): return x+1\n    # 'comment'"] * 20

# Letters, digits, white space and signs of all kinds, for GPT-2's own pattern has to be met.
PIECES = [
    *("a", "b", "Z", "s", "t", "re", "ll", "'", '"', "(", ")", "1", "23", "_", "-", "'S", "\0"),
    *(" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\x85", "\u2028", "\u202f"),
    *("\x1c", "\x1f", "\x7f", "\u180e", "\u200b", "\u0308"),  # white space to some, not to others
    *("é", "日", "ß", "İ", "²", "٣", "😀"),
]


BYTE_LEVEL = {"type": "ByteLevel", "trim_offsets": True, "add_prefix_space": False}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return made.byte_level(
        tmp_path_factory.mktemp("t") / "tokenizer.json", TEXTS, 300, [], regex=True
    )


def test_ids_are_those_of_the_library_whatever_the_text(path):
    tokenizer = HuggingFace(path)
    assert tokenizer._encode_texts != tokenizer._encode_each
    draw = random.Random(0)
    texts = ["".join(draw.choices(PIECES, k=draw.randint(0, 14))) for _ in range(4000)]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_arrays_hold_the_ids_of_lists(path):
    tokenizer = HuggingFace(path)
    texts = [*TEXTS[:2], "", "caf\u00e9\x1c"]
    arrays = tokenizer.encode_arrays(texts)
    assert [list(ids) for ids in arrays] == [tokenizer.encode(text) for text in texts]
    assert {type(ids) for ids in arrays} == {array}
    assert {ids.itemsize for ids in arrays} == {4}  # the bytes of one id


class Lower(HuggingFace):
    """As a user may write it: what preparation encodes with is `encode_batch`."""

    def encode_batch(self, texts):
        return super().encode_batch([text.lower() for text in texts])


def test_preparation_encodes_as_a_subclass_does(path):
    assert [*map(list, Lower(path).encode_arrays(["The Mill"]))] == [
        HuggingFace(path).encode("the mill")
    ]


@pytest.mark.parametrize("pattern", [COARSE, FINE])
def test_the_words_of_a_text_are_all_of_it(pattern):
    draw = random.Random(1)
    for _ in range(1000):
        text = "".join(draw.choices(PIECES, k=draw.randint(0, 14)))
        assert "".join(re.findall(pattern, text)) == text


def test_the_fine_words_of_ascii_worked_out_by_hand():
    words = re.findall(FINE, "it's 'self'  (x1)\n    end ")
    assert words == [
        *("it", "'s", " '", "self", "'", " ", " (", "x", "1", ")", "\n   ", " end", " "),
    ]
    assert re.findall(FINE, "abc caf\u00e9s def") == ["abc", " caf\u00e9s def"]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}},
        {"pre_tokenizer": {**BYTE_LEVEL, "use_regex": False}},
    ],
)
def test_tokenizers_that_cut_in_another_way_are_left_to_the_library(path, tmp_path, change):
    with open(path) as file:
        content = json.load(file) | change
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(content))
    tokenizer = HuggingFace(str(other))
    assert tokenizer._encode_texts == tokenizer._encode_each


def test_a_word_is_encoded_once_for_all_texts():
    asked = []

    def lengths(words):
        asked.extend(words)
        return [bytes([len(word)]) for word in words]

    words = Words(COARSE, lengths)
    assert words.ids(["a bc a", " bc"]) == [b"\1\3\2", b"\3"]
    assert words.ids(["a bc"]) == [b"\1\3"]
    assert sorted(asked) == [" a", " bc", "a"]


def test_the_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_CHARACTERS", 10)
    words = Words(COARSE, lambda new: [bytes([int(word)]) for word in new])
    for number in range(100):
        assert words.ids([f"{number} 7"]) == [bytes([number, 7])]
        assert sum(map(len, words._known)) <= 10 + 4


def test_the_memory_of_long_words_is_bounded_too(monkeypatch):
    monkeypatch.setattr(module, "MOST_CHARACTERS", 1000)
    asked = []

    def lengths(words):
        asked.extend(words)
        return [bytes([len(word)]) for word in words]

    words = Words(COARSE, lengths)
    longest, longer = module.LONGEST * "a", (module.LONGEST + 1) * "b"
    for _ in range(2):
        assert words.ids([f"{longer} c", longest]) == [bytes([65, 2]), bytes([64])]
    assert sorted(asked) == [" c", longest, longer, longer]
    assert set(words._known) == {" c", longest}
    for number in range(100):
        words.ids([f"{number:060}"])
        assert sum(map(len, words._known)) <= 1000 + 60


def test_paragraphs_without_spaces_and_base64_have_the_ids_of_the_library(path):
    tokenizer = HuggingFace(path)
    draw = random.Random(2)
    alphabets = ["日本語の文章、。", "abcXYZ019+/=", "日本a1'", "é'll s"]
    texts = [
        "\n".join(
            "".join(draw.choices(draw.choice(alphabets), k=length)) for length in (63, 64, 65)
        )
        for _ in range(100)
    ] * 2
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_long_texts_are_cut_in_front_of_white_space(monkeypatch):
    monkeypatch.setattr(module, "PORTION", 5)
    assert list(portions("abcdefg hi jklmn\n  o")) == ["abcdefg", " hi jklmn", "\n  o"]
