import json

import pytest

from lit_llm.tokenizer.tokenizer_json import TokenizerJson, byte_characters

METASPACE = {"type": "Metaspace", "replacement": "▁"}
FALLBACK = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
    ],
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(decoder: dict, vocab: dict | list, **model) -> TokenizerJson:
        content = {"model": {"type": "BPE", "vocab": vocab} | model, "decoder": decoder}
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        return TokenizerJson(tmp_path / "tokenizer.json")

    return write_and_read


def test_byte_characters_are_gpt2s():
    table = byte_characters()
    assert len(set(table.values())) == 256
    assert (table[ord("A")], table[ord(" ")], table[ord("\n")], table[0xFF]) == ("A", "Ġ", "Ċ", "ÿ")
    assert (table[0x00], table[0x7F], table[0xA0], table[0xAD]) == ("Ā", "ġ", "ł", "Ń")


def test_tokens_are_read_by_the_rules_of_their_kind(read):
    byte_level = read({"type": "ByteLevel"}, {"Ġa": 0, "Ã": 1, "日": 2, "<0x41>": 3})
    assert byte_level.bytes_of("Ġa") == b" a"
    assert byte_level.bytes_of("Ã") == b"\xc3"
    assert byte_level.bytes_of("日") == "日".encode()  # not of the alphabet: added as it stands
    assert byte_level.bytes_of("<0x41>") == b"<0x41>"
    fallback = read(FALLBACK, {"▁a": 0, "<0xC3>": 1, "Ã": 2, "?": 3}, unk_token="?")
    assert fallback.bytes_of("▁a") == b" a"
    assert fallback.bytes_of("<0xC3>") == b"\xc3"
    assert fallback.bytes_of("Ã") == "Ã".encode()
    assert fallback.bytes_of("?") == "\ufffd".encode()
    assert read(METASPACE, {"<0xC3>": 0}).bytes_of("<0xC3>") == b"<0xC3>"  # no byte fallback


def test_a_unigram_vocabulary_is_a_list(read):
    file = read(METASPACE, [["<unk>", 0.0], ["▁a", -1.5]], type="Unigram", unk_id=0)
    assert file.ids == {"<unk>": 0, "▁a": 1}
    assert file.unknown == 0


def test_spelling_takes_characters_then_bytes_then_unknown(read):
    vocab = {"?": 0, "a": 1, "▁": 2, "<0xC3>": 3, "<0xA9>": 4, "b": 5}
    file = read(FALLBACK, vocab, unk_token="?")
    assert file.spell("a é", avoid=()) == [1, 2, 3, 4]
    assert file.spell("abz", avoid={5}) == [1, 0, 0]


@pytest.mark.parametrize(
    ("decoder", "adds"),
    [
        ({"type": "ByteLevel"}, False),
        (METASPACE, True),
        (METASPACE | {"add_prefix_space": False}, False),
        (METASPACE | {"prepend_scheme": "first"}, True),
        (METASPACE | {"prepend_scheme": "never"}, False),
        (FALLBACK, False),
        (
            {
                "type": "Sequence",
                "decoders": [FALLBACK, {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
            },
            True,
        ),
    ],
)
def test_whether_decoding_takes_a_first_space_away(read, decoder, adds):
    assert read(decoder, {"a": 0}).adds_space is adds


def test_an_appended_token_comes_behind_all_others(read):
    file = read({"type": "ByteLevel"}, {"a": 0, "b": 41})
    assert file.append("<|user|>") == 42
    assert file.added[-1]["special"]
