"""llama.cpp and transformers compute the same, with every kind of network and tokenizer."""

import re
import unicodedata
from pathlib import Path

import pytest
import sentencepiece as spm
import torch
import transformers

from lit_llm.checkpoint.gguf import llama_cpp, probes
from lit_llm.checkpoint.gguf.vocabulary import vocabulary
from lit_llm.checkpoint.gguf.write import export_gguf
from lit_llm.model.rope import RopeScaling
from lit_llm.tokenizer import SentencePiece, Tokenizer
from tests.checkpoint.gguf import made

pytestmark = pytest.mark.interop

KINDS = {
    "llama": {},
    "llama, wide heads": {"head_dim": 32},
    "llama, linear": {"rope_scaling": RopeScaling(kind="linear", factor=4)},
    "llama 3": {"rope_scaling": RopeScaling(factor=4, original_max_seq_len=64)},
    "llama 3, theta": {"rope_scaling": RopeScaling(original_max_seq_len=64), "rope_theta": 5e5},
    "qwen2": {"qkv_bias": True, "rope_theta": 1e6},
    "qwen2, linear": {"qkv_bias": True, "rope_scaling": RopeScaling(kind="linear", factor=2)},
    "qwen3": {"qk_norm": True, "norm_eps": 1e-6},
    "qwen3, wide heads": {"qk_norm": True, "head_dim": 32},
    "qwen3, linear": {"qk_norm": True, "rope_scaling": RopeScaling(kind="linear", factor=2)},
    "qwen3, biases": {"qk_norm": True, "qkv_bias": True},
}


def export(
    folder: Path, tokenizer: Tokenizer, dtype: str = "float32", *, chat: bool = True, **changes
) -> tuple[Path, list[str]]:
    """The file, and what the export tells."""
    sizes = {"max_seq_len": 300, "n_layer": 3, "d_ff": 96, **changes}
    gpt = made.network(tokenizer.vocab_size, **sizes)
    source = made.save(folder / "a", gpt, tokenizer, chat=chat)
    told = export_gguf(source, folder / "b", dtype)
    return next((folder / "b").glob("*.gguf")), told


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("n_kv_head", [6, 2, 1], ids=["mha", "gqa", "mqa"])
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_is_1e_4_nats_off_at_most_and_as_greedy(
    tmp_path, sentencepiece, kind, n_kv_head, tied
):
    sizes = {"n_kv_head": n_kv_head, "tie_embeddings": tied, **KINDS[kind]}
    _, (_, said) = export(tmp_path, sentencepiece, **sizes)
    assert difference(said) < 1e-4
    assert "the same at 72 of 72 steps; 300 texts and 6 conversations become the same" in said


def difference(said: str) -> float:
    return float(re.search(r"at most (\S+) nats", said)[1])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.03), ("bfloat16", 0.2), ("q8_0", 0.6)])
def test_fewer_bits_cost_what_they_cost(tmp_path, sentencepiece, kind, dtype, most):
    _, (_, said) = export(tmp_path, sentencepiece, dtype, n_kv_head=2, **KINDS[kind])
    assert 1e-4 < difference(said) < most


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_transformers_reads_the_same_network_out_of_the_file(
    tmp_path, sentencepiece, monkeypatch, kind
):
    """A second reader that has its own table of names and its own order of rows."""
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    sizes = {"max_seq_len": 300, "n_kv_head": 2, **KINDS[kind]}
    if kind == "qwen3":
        sizes["head_dim"] = 128  # transformers takes no other out of a file
    path, _ = export(tmp_path, sentencepiece, **sizes)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ours = made.network(sentencepiece.vocab_size, n_layer=3, d_ff=96, **sizes)
    ids = torch.randint(700, (2, 250), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), rtol=0, atol=1e-4)


TOKENIZERS = ["bpe", "bpe, whole numbers", "char"]
TOKENIZERS += ["gpt2", "few-bytes", "llama3", "llama3-as-it-is", "qwen2", "smollm"]


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request, tmp_path) -> Tokenizer:
    if request.param == "char":
        return made.sentencepiece(vocab_size=450, model_type="char")
    if request.param.startswith("bpe"):
        return made.sentencepiece(vocab_size=2000, split_digits=request.param == "bpe")
    return made.byte_level(tmp_path / "tokenizer.json", request.param)


def test_3000_texts_and_3000_of_all_unicode_become_the_same_tokens(
    tmp_path, tokenizer, monkeypatch
):
    monkeypatch.setattr(llama_cpp, "is_there", lambda: False)
    path, _ = export(tmp_path, tokenizer, n_layer=1, chat=False)
    words = vocabulary(tokenizer, tokenizer.vocab_size).described
    assert words.mistakable == []
    texts = probes.texts(tokenizer, 3000, seed=1, composed=words.composes)
    assert sum("<s>" in text for text in texts) > 20
    texts += made.texts_of_all_unicode(3000)
    if words.composes:
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    if words.lacks_bytes:
        texts = [text for text in texts if tokenizer.decode(tokenizer.encode(text)) == text]
    assert len(texts) > 3000
    gpt = made.network(tokenizer.vocab_size, max_seq_len=300, n_layer=1, d_ff=96)
    asked = llama_cpp.Question(texts, prompts=[[5]], chats=[], letter=probes.letter(tokenizer))
    assert llama_cpp.compare(path, gpt, tokenizer, asked).other_texts == []


@pytest.mark.parametrize(
    "settings",
    [{"add_dummy_prefix": True}, {"user_defined_symbols": ["<b>", "▁▁▁"]}],
    ids=["as Llama 2's and Mistral's", "as Gemma's"],
)
def test_models_of_others_put_a_space_in_front_or_look_for_pieces_first(tmp_path, settings):
    lines = [line for text in made.corpus() for line in text.splitlines()]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(tmp_path / "m"),
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **{"add_dummy_prefix": False, **settings},
    )
    tokenizer = SentencePiece(str(tmp_path / "m.model"))
    begins = tokenizer.token_bytes(tokenizer.encode("a")[0])[:1]
    assert (begins == b" ") is ("user_defined_symbols" not in settings)
    _, (*_, said) = export(tmp_path, tokenizer, n_layer=1, chat=False)
    assert "300 texts and 0 conversations become the same tokens" in said
