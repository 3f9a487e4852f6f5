import json

import pytest
import transformers

from lit_llm.checkpoint.hf.strings import random_texts, typed_control
from lit_llm.checkpoint.hf.tokenizer_files import (
    read_foreign_chat,
    read_foreign_tokenizer,
    write_tokenizer,
)
from lit_llm.tokenizer import HuggingFace, SentencePiece
from tests.checkpoint.hf.published import publish_llama_2_tokenizer, publish_tokenizer

TEXTS = ["Anna bakes the bread, and 12 people eat it.", "def f(x):\n    return x + 1\n"] * 20


@pytest.mark.parametrize("model_type", ["bpe", "char"])
def test_a_sentencepiece_model_has_the_same_tokens_in_transformers(model_type, tmp_path):
    ours = SentencePiece(vocab_size=320, model_type=model_type).train(TEXTS)
    write_tokenizer(ours, tmp_path, chat=True, max_seq_len=64)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == 64
    for text in [*random_texts(300), *TEXTS[:2]]:
        ids = ours.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert theirs(text)["input_ids"] == ours.document(ids)
        assert theirs.decode(ids) == text
    for text in typed_control(sorted(ours.control), 60):
        split = theirs(text, add_special_tokens=False, split_special_tokens=True)
        assert split["input_ids"] == ours.encode(text)
    for name in ("bos", "eos", "pad"):
        assert getattr(theirs, f"{name}_token_id") == ours.special_id(name)


def test_what_was_written_is_read_again_as_the_same_tokenizer(tmp_path, witness_here):
    ours = SentencePiece(vocab_size=320).train(TEXTS)
    write_tokenizer(ours, tmp_path, chat=False, max_seq_len=64)
    back = read_foreign_tokenizer(tmp_path)[0]
    assert isinstance(back, HuggingFace)
    assert back.special == ours.special
    for text in random_texts(200):
        assert back.encode(text) == ours.encode(text)
    assert back.document([]) == ours.document([])


@pytest.mark.parametrize("bos", [True, False])
def test_a_text_begins_with_bos_where_transformers_puts_one(bos, tmp_path, witness_here):
    publish_tokenizer(tmp_path, bos=bos)
    tokenizer = read_foreign_tokenizer(tmp_path)[0]
    assert tokenizer.document([7]) == ([1, 7] if bos else [7])
    assert tokenizer.special["eos"] == 2  # <|im_end|>, as tokenizer_config.json says
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("bread")["input_ids"] == tokenizer.document(tokenizer.encode("bread"))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (None, None),
        ("{{ a }}", "{{ a }}"),
        ([{"name": "tools", "template": "b"}, {"name": "default", "template": "a"}], "a"),
        ([{"name": "tools", "template": "b"}], None),
    ],
)
def test_the_chat_template_of_older_files_is_found(said, found, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": said}))
    assert read_foreign_chat(tmp_path) == found
    (tmp_path / "chat_template.jinja").write_text("{{ newer }}")
    assert read_foreign_chat(tmp_path) == "{{ newer }}"


def test_a_tokenizer_of_a_user_s_own_class_is_refused(tmp_path):

    with pytest.raises(ValueError, match="int is a tokenizer of your own"):
        write_tokenizer(3, tmp_path, chat=False, max_seq_len=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("legacy", [True, False, None])
@pytest.mark.parametrize("files", ["both", "json", "model"])
def test_llama_2_s_tokenizer_puts_spaces_where_transformers_does(
    files, legacy, tmp_path, witness_here
):
    publish_llama_2_tokenizer(tmp_path, legacy=legacy, files=files)
    ours = read_foreign_tokenizer(tmp_path)[0]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in random_texts(200):
        ids = ours.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        assert theirs(text)["input_ids"] == ours.document(ids)
    inside = theirs("</s>bread and", add_special_tokens=False)["input_ids"]
    assert [ours.special_id("eos"), *ours.encode_inside("bread and")] == inside
