"""Against the `tokenizers` library itself, on tokenizer.json files that are trained here."""

import json
import pickle
import random
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, processors

from lit_llm.tokenizer import SPECIAL, ChatTemplate, HuggingFace, Message
from tests.tokenizer import made

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "the miller and the baker live in a village by the river",
    "3 loaves of bread\tfor 17 coins\n\n    and (a) <b>flour</b> end of text s im start",
] * 20

HARD = [
    "",
    "  two  spaces  ",
    "a\tb\r\n\0\x1b\x7f",
    "\ufeff é e\u0301 👩‍👩‍👧 漢字 \u2581\u2585 \ufffd\uffff",
    "the miller's 17 <b>loaves</b>",
]

# By default the library makes control tokens out of most of these.
INJECTIONS = [
    text
    for token in ["<s>", "</s>", "<|user|>", *CONTROL]
    for text in (token, f"a {token} b", f"x{token}{token}y\n{token}")
]


def byte_level(path: Path, *, regex: bool = True, special: list[str] = CONTROL) -> str:
    return made.byte_level(path, TEXTS, 300, special, regex=regex)


def unigram(path: Path) -> str:
    return made.unigram(path, TEXTS, 90, ["<pad>", "</s>", "<unk>", "<s>"], "<>/|_\n")


def llama(path: Path) -> str:
    """A tokenizer.json like Llama 2's: BPE with a space in front and byte fallback."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {token: id for id, token in enumerate(["<unk>", "<s>", "</s>", *byte_tokens])}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    for token in [*"▁theamilr", *("".join(pair) for pair in merges)]:
        vocab[token] = len(vocab)
    bpe = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    library = tokenizers.Tokenizer(bpe)
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    library.save(str(path))
    return str(path)


def edit(path: str, **changes) -> str:
    content = json.loads(Path(path).read_text()) | changes
    Path(path).write_text(json.dumps(content))
    return path


KINDS = {"byte_level": byte_level, "unigram": unigram, "llama": llama}


@pytest.fixture(params=sorted(KINDS))
def path(request, tmp_path) -> str:
    return KINDS[request.param](tmp_path / "tokenizer.json")


def plain_texts(n: int) -> list[str]:
    """Random strings in which nothing looks like a control token."""
    draw = random.Random(8)
    alphabet = "the mil ar.  \n\t17" + "é漢👩\u0301\ufeff\0"
    return ["".join(draw.choices(alphabet, k=draw.randint(0, 30))) for _ in range(n)]


def test_ids_and_text_are_those_of_the_library(path):
    library, ours = tokenizers.Tokenizer.from_file(path), HuggingFace(path)
    assert ours.vocab_size == library.get_vocab_size()
    for text in [*HARD, *plain_texts(500)]:
        ids = ours.encode(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
        if library.token_to_id("<unk>") not in ids:
            assert ours.decode(ids) == library.decode(ids)


def test_a_byte_level_tokenizer_keeps_any_text(tmp_path):
    ours = HuggingFace(byte_level(tmp_path / "tokenizer.json"))
    for text in [*HARD, *INJECTIONS, *plain_texts(500)]:
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        assert b"".join(ours.token_bytes(id) for id in ids) == text.encode()


def test_byte_fallback_keeps_any_text_without_the_character_that_writes_a_space(tmp_path):
    ours = HuggingFace(llama(tmp_path / "tokenizer.json"))
    for text in [t for t in [*HARD, *INJECTIONS, *plain_texts(500)] if "\u2581" not in t]:
        assert ours.decode(ours.encode(text)) == text


def test_no_text_becomes_a_control_token(path):
    ours = HuggingFace(path)
    control = {id for id in range(ours.vocab_size) if ours.token_bytes(id) == b""}
    assert control >= set(ours.special.values())
    assert control
    for text in INJECTIONS:
        assert control.isdisjoint(ours.encode(text))
        assert ours.decode(ours.encode(text)) == text
    assert ours.encode_batch(INJECTIONS) == [ours.encode(text) for text in INJECTIONS]


def test_the_library_alone_does_let_text_become_control_tokens(tmp_path):
    """The reason for the test above; `encode_special_tokens` is not enough for unigram."""
    library = tokenizers.Tokenizer.from_file(unigram(tmp_path / "tokenizer.json"))
    library.encode_special_tokens = True
    assert library.token_to_id("</s>") in library.encode("a</s>b").ids


def test_a_control_token_that_is_a_whole_word_of_the_vocabulary_is_spelled_out(tmp_path):
    """With ignore_merges, as in Llama 3, a word that is in the vocabulary is taken as it stands."""
    path = byte_level(tmp_path / "tokenizer.json", regex=False)
    model = json.loads(Path(path).read_text())["model"] | {"ignore_merges": True}
    ours = HuggingFace(edit(path, model=model))
    assert b"".join(ours.token_bytes(id) for id in ours.encode("<|im_end|>")) == b"<|im_end|>"


def test_token_bytes_of_a_control_token_are_empty_and_of_others_what_they_write(tmp_path):
    ours = HuggingFace(byte_level(tmp_path / "tokenizer.json"))
    assert [ours.token_bytes(id) for id in range(3)] == [b"", b"", b""]
    single = {ours.token_bytes(id) for id in range(3, 259)}
    assert single == {bytes([byte]) for byte in range(256)}
    assert ours.decode([0, *ours.encode("the"), 2]) == "the"
    with pytest.raises(ValueError, match="id 300 is outside"):
        ours.token_bytes(300)


def test_control_tokens_are_found_named_and_appended(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    assert HuggingFace(path).special == {"bos": 0, "eos": 0, "end": 2}
    named = HuggingFace(path, special={"pad": "<|endoftext|>", "bos": "<|im_start|>"})
    assert named.special == {"pad": 0, "bos": 1, "eos": 0, "end": 2}
    grown = HuggingFace(path, add_missing=True)
    assert set(grown.special) == set(SPECIAL)
    assert grown.vocab_size == 300 + 5
    assert grown.special_id("assistant") == 304
    assert grown.decode(grown.encode("<|assistant|>")) == "<|assistant|>"
    assert 304 not in grown.encode("<|assistant|>")
    with pytest.raises(ValueError, match="no 'user' token"):
        named.special_id("user")


def test_a_chat_can_be_written_with_gpt2s_kind_of_tokenizer(tmp_path):
    tokenizer = HuggingFace(byte_level(tmp_path / "tokenizer.json"), add_missing=True)
    messages = [Message("user", "<|user|>the"), Message("assistant", "baker")]
    ids, learned = ChatTemplate().encode(tokenizer, messages)
    assert ids.count(tokenizer.special_id("user")) == 1
    assert sum(learned) == len(tokenizer.encode("baker")) + 1


def test_a_token_marked_as_ordinary_is_control_once_it_is_used_as_such(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    before = HuggingFace(path)
    library = tokenizers.Tokenizer.from_file(path)
    library.add_tokens(["<|user|>", "<|tool|>"])
    library.save(path)
    ours = HuggingFace(path)
    assert ours.special_id("user") == 300
    assert ours.encode("text<|user|>") == before.encode("text<|user|>")
    assert ours.encode("a<|tool|>")[-1] == 301  # an ordinary token, and it writes its name
    assert ours.decode(ours.encode("a<|tool|><|user|>")) == "a<|tool|><|user|>"


def test_truncation_padding_and_dropout_of_the_file_are_off(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    plain = HuggingFace(path).encode("the miller and the baker")
    library = tokenizers.Tokenizer.from_file(path)
    library.enable_truncation(2)
    library.enable_padding(length=50)
    library.model.dropout = 0.9
    library.save(path)
    ours = HuggingFace(path)
    assert [ours.encode("the miller and the baker") for _ in range(5)] == [plain] * 5
    assert ours.encode_batch(["the miller and the baker", "the"])[0] == plain


def test_no_control_token_is_put_around_a_text_though_the_file_asks_for_it(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    plain = HuggingFace(path).encode("the miller")
    library = tokenizers.Tokenizer.from_file(path)
    around = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    library.post_processor = around
    library.save(path)
    assert library.encode("the miller").ids == [1, *plain]
    assert HuggingFace(path).encode("the miller") == plain
    assert HuggingFace(path).encode_batch(["the miller"]) == [plain]


def test_saved_and_pickled_it_is_the_same_tokenizer(path, tmp_path):
    library = tokenizers.Tokenizer.from_file(path)
    eos = library.id_to_token(HuggingFace(path).special_id("eos"))
    ours = HuggingFace(path, special={"pad": eos})
    folder = tmp_path / "saved"
    folder.mkdir()
    ours.save(folder)
    for other in HuggingFace.load(folder), pickle.loads(pickle.dumps(ours)):
        assert other.fingerprint == ours.fingerprint
        assert other.special == ours.special
        texts = [*HARD, *INJECTIONS]
        assert other.encode_batch(texts) == ours.encode_batch(texts)


def test_appended_tokens_survive_saving(tmp_path):
    ours = HuggingFace(byte_level(tmp_path / "tokenizer.json"), add_missing=True)
    ours.save(tmp_path)
    loaded = HuggingFace.load(tmp_path)
    assert (loaded.special, loaded.fingerprint) == (ours.special, ours.fingerprint)


def test_fingerprints_differ_with_the_vocabulary_and_with_the_control_tokens(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    other = byte_level(tmp_path / "other.json", special=["<s>", *CONTROL])
    fingerprints = [
        HuggingFace(path).fingerprint,
        HuggingFace(path, special={"pad": "<|endoftext|>"}).fingerprint,
        HuggingFace(path, add_missing=True).fingerprint,
        HuggingFace(other).fingerprint,
    ]
    assert len(set(fingerprints)) == 4


def test_a_lone_surrogate_is_refused_with_its_place(path):
    for encode in HuggingFace(path).encode, lambda text: HuggingFace(path).encode_batch([text]):
        with pytest.raises(ValueError, match=r"lone surrogate, U\+D800, at character 1"):
            encode("a\ud800")


def test_it_cannot_be_trained(path):
    assert HuggingFace(path).trained
    with pytest.raises(ValueError, match="HuggingFace is trained already"):
        HuggingFace(path).train(["text"])


def test_files_of_other_kinds_are_refused(tmp_path):
    wordpiece = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.save(str(tmp_path / "bert.json"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"model": "gpt"}')
    (tmp_path / "list.json").write_text("[]")
    for name, message in {
        "bert.json": "a WordPiece tokenizer that does not keep text",
        "broken.json": "is no JSON file",
        "other.json": "holds no tokenizer",
        "list.json": "holds no tokenizer",
        "missing.json": "no tokenizer at",
    }.items():
        with pytest.raises(ValueError, match=message):
            HuggingFace(str(tmp_path / name))


def test_special_tokens_that_do_not_exist_are_refused(tmp_path):
    path = byte_level(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"special\.user='<human>' is no token"):
        HuggingFace(path, special={"user": "<human>"})
    with pytest.raises(ValueError, match="special has the name 'human': choose from pad, bos"):
        HuggingFace(path, special={"human": "<|im_start|>"})


def test_without_the_package_one_line_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"pip install 'lit-llm\[hf\]'") as error:
        HuggingFace(path)
    assert "\n" not in str(error.value)
