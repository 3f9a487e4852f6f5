from pathlib import Path

import numpy as np
import pytest

from lit_llm.tokenizer import SPECIAL, ChatTemplate, SentencePiece, Tokenizer
from lit_llm.tokenizer.base import SPELLINGS, find_special, require_utf8
from lit_llm.tokenizer.chat import Turn


class Letters(Tokenizer):
    """The least that a tokenizer of one's own has to say: a byte is a token, 256 is the end."""

    vocab_size = 257
    special = {"eos": 256}
    fingerprint = "letters"

    def encode(self, text):
        return list(text.encode())

    def token_bytes(self, id):
        return bytes([id]) if id < 256 else b""

    def save(self, folder):
        pass

    @classmethod
    def load(cls, folder):
        return cls()


def test_a_tokenizer_of_ones_own_gets_the_rest_from_the_base_class():
    letters = Letters()
    assert letters.decode([0xC3, 0xA9, 256]) == "é"
    assert letters.decode(np.array([104, 105])) == "hi"
    assert letters.decode([0xC3, 33]) == "\ufffd!"
    assert letters.encode_batch(["a", "", "bc"]) == [[97], [], [98, 99]]
    assert letters.trained
    assert letters.recipe()["fingerprint"] == "letters"
    assert letters.recipe()["class_path"].endswith(".Letters")
    with pytest.raises(ValueError, match="Letters is trained already"):
        letters.train(["text"])


def test_the_tokenizer_in_the_docs_works():
    page = (Path(__file__).parents[2] / "docs" / "tokenizer.md").read_text(encoding="utf-8")
    code = page.split("```python\n# my_project.py\n")[1].split("```")[0]
    names: dict = {"__name__": "my_project"}
    exec(code, names)
    tokenizer = names["Bytes"]()
    assert tokenizer.decode([tokenizer.special_id("bos"), *tokenizer.encode("é \0")]) == "é \0"


def test_a_missing_control_token_is_named_with_those_that_exist():
    assert Letters().special_id("eos") == 256
    with pytest.raises(ValueError, match=r"no 'user' token \(it has: eos\)"):
        Letters().special_id("user")


def test_every_control_token_has_a_spelling_and_our_own_differ():
    assert tuple(SPELLINGS) == SPECIAL
    assert len({spellings[0] for spellings in SPELLINGS.values()}) == len(SPECIAL)


@pytest.mark.parametrize(
    ("tokens", "special"),
    [
        ({"<|endoftext|>": 50256}, {"bos": 50256, "eos": 50256}),  # GPT-2
        ({"<unk>": 0, "<s>": 1, "</s>": 2}, {"bos": 1, "eos": 2}),  # Llama 2
        (
            {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2},  # Qwen, SmolLM
            {"bos": 0, "eos": 0, "end": 2},
        ),
        (
            {"[PAD]": 0, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4},  # BERT
            {"pad": 0, "bos": 2, "eos": 3, "mask": 4},
        ),
        ({}, {}),
    ],
)
def test_control_tokens_are_found_by_how_published_tokenizers_write_them(tokens, special):
    assert find_special(tokens) == special


def test_a_lone_surrogate_is_refused_with_a_remedy_that_works():
    require_utf8("😀 \0 \ufeff")
    text = "ab\udc80"
    with pytest.raises(ValueError, match=r"U\+DC80, at character 2") as error:
        require_utf8(text)
    assert len(str(error.value).splitlines()) <= 3
    require_utf8(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def test_what_ends_an_answer_and_what_is_never_said():
    tokenizer = SentencePiece(vocab_size=300).train(["who is there? anna bakes bread"] * 9)
    special = tokenizer.special
    assert tokenizer.stop_ids(chat=False) == {special["end"], special["eos"]}
    tokenizer.chat_template = ChatTemplate(assistant=Turn("{assistant}", "{user}"))
    assert tokenizer.stop_ids(chat=True) == {special[name] for name in ("end", "eos", "user")}
    unsaid = tokenizer.unsaid_ids(303, chat=True)
    assert unsaid == {special[n] for n in ("pad", "bos", "mask", "system", "assistant")} | {
        300,
        301,
        302,
    }
