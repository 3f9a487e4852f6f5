import json

import pytest

from lit_llm.checkpoint.gguf.vocabulary import vocabulary
from lit_llm.tokenizer import HuggingFace, SentencePiece
from tests.checkpoint.gguf import made


def test_control_tokens_have_llama_cpps_names(sentencepiece):
    described = vocabulary(sentencepiece, sentencepiece.vocab_size).metadata
    ids = {key: described[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "padding")}
    assert ids == {"padding": 1, "bos": 2, "eos": 3}  # by the order of tokenizer.base.SPECIAL
    assert described["tokenizer.ggml.eot_token_id"] == 8
    assert described["tokenizer.ggml.mask_token_id"] == 4
    assert described["tokenizer.ggml.add_bos_token"] is True
    scores = described["tokenizer.ggml.scores"]
    assert scores[265:268] == [0, -1, -2]  # of the first pieces that were learned


def test_ids_beyond_the_tokenizers_are_unused(sentencepiece):
    size = sentencepiece.vocab_size
    described = vocabulary(sentencepiece, size + 2).metadata
    assert described["tokenizer.ggml.tokens"][size:] == [f"[UNUSED_{size}]", f"[UNUSED_{size + 1}]"]
    assert described["tokenizer.ggml.token_type"][size:] == [5, 5]
    assert len(described["tokenizer.ggml.scores"]) == size + 2


def test_a_tokenizer_without_bos_adds_none_and_one_without_eos_ends_at_the_end_of_a_turn(tmp_path):
    made.byte_level(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    for token in content["added_tokens"]:  # <|endoftext|> is bos and eos, <|im_start|> is bos
        token["content"] = token["content"].replace("<|endoftext|>", "[A]")
        token["content"] = token["content"].replace("<|im_start|>", "[B]")
    vocab = content["model"]["vocab"]
    vocab |= {"[A]": vocab.pop("<|endoftext|>"), "[B]": vocab.pop("<|im_start|>")}
    (tmp_path / "a.json").write_text(json.dumps(content))
    tokenizer = HuggingFace(str(tmp_path / "a.json"))
    assert tokenizer.special == {"pad": 3, "end": 2}
    described = vocabulary(tokenizer, tokenizer.vocab_size).metadata
    assert described["tokenizer.ggml.add_bos_token"] is False
    assert described["tokenizer.ggml.eos_token_id"] == 2


def test_other_tokenizers_are_refused(theirs):
    class Own(SentencePiece):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.lower())

    with pytest.raises(ValueError, match=r"their_parts\.Letters is no tokenizer of llama.cpp's"):
        vocabulary(theirs.Letters("abc"), 3)
    own = Own(vocab_size=400).train(made.corpus())
    with pytest.raises(ValueError, match=r"Own is no tokenizer of llama\.cpp's"):
        vocabulary(own, 400)


def test_a_tokenizer_larger_than_the_model_is_refused(sentencepiece):
    with pytest.raises(ValueError, match="the tokenizer has 700 ids, the model 699"):
        vocabulary(sentencepiece, 699)


def test_twins_are_refused(tmp_path):
    """llama.cpp does not start with two tokens that are written alike."""
    tokenizer = made.byte_level(tmp_path / "a.json")
    size = tokenizer.vocab_size
    path = tmp_path / "b.json"
    content = json.loads((tmp_path / "a.json").read_text())
    twin = {**content["added_tokens"][0], "id": size, "content": f"[UNUSED_{size + 1}]"}
    content["added_tokens"].append(twin)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"tokens {size} and {size + 1} are both written"):
        vocabulary(HuggingFace(str(path)), size + 2)
