import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_llm.checkpoint.gguf import llama_cpp, tensors, write
from lit_llm.checkpoint.gguf.llama_cpp import Figures, compare, judge, question
from lit_llm.checkpoint.gguf.vocabulary import vocabulary
from lit_llm.checkpoint.hf.prove import NotEqual
from tests.checkpoint.gguf import made

FIGURES = Figures(
    difference=5e-6,
    compared=4000,
    spread=0.5,
    equal_steps=71,
    steps=72,
    texts=300,
    other_texts=[],
    chats=6,
    other_chats=0,
)


def test_the_package_is_there():
    """These tests need it: none is passed over where it is missing."""
    assert llama_cpp.is_there()
    assert importlib.util.find_spec("xllamacpp") is not None


@pytest.fixture(scope="module")
def exported(tmp_path_factory, sentencepiece) -> tuple:
    """A file, its network and the question."""
    folder = tmp_path_factory.mktemp("gguf")
    gpt = made.network(sentencepiece.vocab_size, n_kv_head=2)
    write.export_gguf(made.save(folder / "a", gpt, sentencepiece, chat=True), folder / "b")
    words = vocabulary(sentencepiece, sentencepiece.vocab_size)
    asked = question(gpt.config, sentencepiece, words, is_chat=True)
    return folder / "b" / "model-f32.gguf", gpt, asked


def test_llama_cpp_computes_what_we_compute(exported, sentencepiece):
    path, gpt, asked = exported
    figures = compare(path, gpt, sentencepiece, asked)
    assert figures.difference < 2e-5
    assert 0.5 < figures.spread < 2
    assert figures.compared == 700 * figures.steps
    assert figures.equal_steps == figures.steps == 24 * 3
    assert (figures.texts, figures.other_texts) == (300, [])
    assert (figures.chats, figures.other_chats) == (6, 0)


def test_another_network_shows(exported, sentencepiece):
    path, _, asked = exported
    other = made.network(sentencepiece.vocab_size, n_kv_head=2)
    with torch.no_grad():
        other.blocks[1].attn.k_proj.weight[0] += 0.01
    figures = compare(path, other, sentencepiece, replace(asked, texts=[]))
    assert figures.difference > 1e-3
    with pytest.raises(NotEqual, match="float32 allows"):
        judge(figures, "float32")


def test_another_tokenizer_shows(exported, sentencepiece):
    path, gpt, asked = exported
    other = made.sentencepiece(vocab_size=700, split_digits=False)
    figures = compare(path, gpt, other, asked)
    assert figures.other_texts
    with pytest.raises(NotEqual, match=r"\d+ of 300 texts become other tokens, such as '"):
        judge(figures, "float32")


def test_figures_are_told_in_words():
    assert judge(FIGURES, "float32") == (
        "llama.cpp: 4,000 log-probabilities at most 5.0e-06 nats off, the likeliest token the same "
        "at 71 of 72 steps; 300 texts and 6 conversations become the same tokens"
    )


@pytest.mark.parametrize(
    ("dtype", "difference", "spread", "is_refused"),
    [
        ("float32", 0.9e-4, 0.01, False),
        ("float32", 1.1e-4, 0.01, True),
        ("float32", 1.1e-3, 1.0, True),
        ("float32", 2.9e-3, 3.0, False),
        ("float16", 0.09, 1.0, False),
        ("float16", 0.06, 0.5, True),
        ("bfloat16", 0.6, 1.0, True),
        ("q8_0", 2.1, 1.0, True),
        ("q8_0", float("nan"), 1.0, True),
    ],
)
def test_the_limit_is_a_share_of_the_spread(dtype, difference, spread, is_refused):
    figures = replace(FIGURES, difference=difference, spread=spread)
    if not is_refused:
        judge(figures, dtype)
        return
    with pytest.raises(NotEqual, match=f"does not compute the model.*{dtype} allows") as refused:
        judge(figures, dtype)
    assert len(str(refused.value).splitlines()) == 2


def test_a_conversation_in_other_tokens_is_refused():
    with pytest.raises(NotEqual, match="1 of 6 conversations become other tokens"):
        judge(replace(FIGURES, other_chats=1), "float32")


def test_llama_cpps_own_complaint_is_told(exported, tmp_path):
    path, gpt, asked = exported
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(
        NotEqual, match=r"cannot use the file \(exit code 1\): tensor 'output.weight' data is not"
    ):
        llama_cpp.ask(cut, gpt, asked)


def test_rows_in_the_wrong_order_show(tmp_path, sentencepiece, monkeypatch):
    monkeypatch.setattr(tensors, "interleaved", lambda weight, n_head: weight)
    gpt = made.network(sentencepiece.vocab_size)
    source = made.save(tmp_path / "a", gpt, sentencepiece)
    with pytest.raises(NotEqual, match="does not compute the model"):
        write.export_gguf(source, tmp_path / "b")
    assert not Path(tmp_path / "b").exists()
