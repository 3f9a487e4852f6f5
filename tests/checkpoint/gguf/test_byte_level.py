import json

import pytest

from lit_llm.checkpoint.gguf.byte_level import describe
from lit_llm.tokenizer import HuggingFace
from tests.checkpoint.gguf import made
from tests.tokenizer import made as other


@pytest.mark.parametrize(
    ("kind", "pre", "composes"),
    [
        ("gpt2", "gpt-2", False),
        ("llama3", "smaug-bpe", False),
        ("llama3-as-it-is", "llama-bpe", False),
        ("qwen2", "qwen2", True),
        ("smollm", "smollm", False),
    ],
)
def test_ways_to_cut_words_are_known_by_what_they_do(tmp_path, kind, pre, composes):
    described = describe(made.byte_level(tmp_path / "a.json", kind))
    assert (described.model, described.pre, described.composes) == ("gpt2", pre, composes)


def test_a_tokenizer_that_has_not_all_bytes_is_known(tmp_path):
    assert describe(made.byte_level(tmp_path / "a.json", "few-bytes")).lacks_bytes
    assert not describe(made.byte_level(tmp_path / "b.json")).lacks_bytes


def test_pieces_and_merges_are_those_of_the_file(tmp_path):
    tokenizer = made.byte_level(tmp_path / "a.json", add_missing=True)
    content = json.loads((tmp_path / "a.json").read_text())
    described = describe(tokenizer)
    assert [piece.text for piece in described.pieces[:4]] == made.CONTROL
    added = [piece.text for piece in described.pieces[-4:]]
    assert added == ["<|mask|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert {piece.type for piece in described.pieces if piece.text.startswith("<|")} == {3}
    pairs = [tuple(merge.split(" ")) for merge in described.metadata["tokenizer.ggml.merges"]]
    assert pairs == [tuple(merge) for merge in content["model"]["merges"]]


def change(path, **changes) -> HuggingFace:
    """A tokenizer whose file says something else; `model__x` is x of its model."""
    made.byte_level(path)
    content = json.loads(path.read_text())
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (content[part] if part else content)[name] = value
    path.write_text(json.dumps(content))
    return HuggingFace(str(path))


CUT = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
WORD = {"id": 700, "content": "<b>", "special": False, "lstrip": True, "rstrip": False}
WORD |= {"single_word": False, "normalized": False}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pre_tokenizer": {**CUT, "add_prefix_space": True}}, "cuts words by .*prefix_space.* no"),
        ({"pre_tokenizer": None}, "cuts words by .*nothing"),
        ({"model__ignore_merges": True}, "cuts words by 's.*, with ignore_merges: no name"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer NFKC of the tokenizer"),
        ({"model__end_of_word_suffix": "_"}, "end_of_word_suffix='_' of the tokenizer"),
        ({"added_tokens": [WORD]}, "added token '<b>' takes spaces along"),
    ],
)
def test_what_llama_cpp_would_encode_in_another_way_is_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said) as refused:
        describe(change(tmp_path / "a.json", **changes))
    assert "\n" not in str(refused.value)


def test_a_tokenizer_json_that_is_not_byte_level_is_refused(tmp_path):
    path = other.unigram(tmp_path / "a.json", ["the miller"] * 9, 40, ["</s>", "<unk>"], "helmirt ")
    with pytest.raises(ValueError, match=r"a Unigram tokenizer\.json that is no byte-level"):
        describe(HuggingFace(path))


def test_a_word_that_serves_as_a_control_token_is_refused(tmp_path):
    with pytest.raises(ValueError, match="';' serves as a control token and is a word as well"):
        describe(made.byte_level(tmp_path / "a.json", special={"eos": ";"}))
