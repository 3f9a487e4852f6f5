from lit_llm.checkpoint.hf.strings import random_texts, typed_control
from lit_llm.tokenizer.base import SPACE


def test_texts_are_the_same_in_every_run_and_of_many_kinds():
    texts = random_texts(500)
    assert texts == random_texts(500)
    assert texts != random_texts(500, seed=1)
    whole = "".join(texts)
    assert SPACE not in whole
    for part in ("\n\n", "\t", "  ", "1234567890", "😀", "привет", "\u0007"):
        assert part in whole
    assert "" in texts or min(map(len, texts)) < 20
    assert len(set(whole)) > 500


def test_every_typed_text_holds_a_control_token():
    texts = typed_control(["<s>", "[INST]"], 50)
    assert all("<s>" in text or "[INST]" in text for text in texts)
    assert typed_control([], 50) == []
