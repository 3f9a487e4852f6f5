import unicodedata

from lit_llm.checkpoint.gguf import probes
from lit_llm.model.config import GPTConfig


def test_texts_are_the_same_each_time_and_hold_what_is_difficult(sentencepiece):
    texts = probes.texts(sentencepiece, 500, seed=1, composed=False)
    assert texts == probes.texts(sentencepiece, 500, seed=1, composed=False)
    assert texts != probes.texts(sentencepiece, 500, seed=2, composed=False)
    together = "".join(texts)
    for part in (
        "<s>",
        "<|im_end|>",
        "<end>",
        "<0x0A>",
        "'LL",
        "\r\n",
        "\u3000",
        "e\u0301",
        "\u00e9",
    ):
        assert part in together
    assert "\u2581" not in together
    assert any(character >= "\U0001f600" for character in together)
    composed = probes.texts(sentencepiece, 500, seed=1, composed=True)
    assert all(unicodedata.is_normalized("NFC", text) for text in composed)
    without = probes.texts(sentencepiece, 500, seed=1, without=["<s>", "a"], composed=False)
    assert not any("<s>" in text or "a" in text for text in without)


def test_prompts_leave_room_for_what_follows_and_begin_with_bos(sentencepiece):
    config = GPTConfig(vocab_size=700, max_seq_len=80)
    prompts = probes.prompts(config, sentencepiece)
    assert [len(prompt) for prompt in prompts] == [5, 28, 56]  # 80 - 24 at most
    control = set(sentencepiece.special.values())
    assert all(prompt[0] == sentencepiece.special["bos"] for prompt in prompts)
    assert not any(control.intersection(prompt[1:]) for prompt in prompts)
    assert probes.prompts(GPTConfig(max_seq_len=2), sentencepiece) == [[2]]
    assert max(map(len, probes.prompts(GPTConfig(max_seq_len=9999), sentencepiece))) == 512


def test_a_letter_is_one(sentencepiece):
    assert sentencepiece.decode([probes.letter(sentencepiece)]).isalpha()
