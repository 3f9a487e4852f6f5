"""The network computes what Hugging Face's Llama and Qwen3 compute, on random weights."""

import pytest
import torch
import transformers

from lit_llm.checkpoint.hf.architectures import from_hf_config
from lit_llm.checkpoint.hf.names import from_hf
from lit_llm.model.cache import KVCache
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout
from tests.checkpoint.hf.published import FAMILIES, their_config

NAMES = {
    "embed.": "model.embed_tokens.",
    "blocks.": "model.layers.",
    ".norm_1.": ".input_layernorm.",
    ".norm_2.": ".post_attention_layernorm.",
    ".attn.": ".self_attn.",
}
SHAPES = {
    "mha": {"n_head": 4, "d_model": 40},
    "gqa": {"n_head": 6, "n_kv_head": 2, "d_model": 60},
    "mqa": {"n_head": 5, "n_kv_head": 1, "d_model": 50},
    # LlamaConfig wants d_model to be a multiple of n_head even then; Qwen3Config does not
    "head_dim": {"n_head": 6, "n_kv_head": 3, "d_model": 48, "head_dim": 14},
}
V = 101  # no multiple of 64: the embedding's padding must not show


def their_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return "model.norm.weight" if name == "norm.weight" else name


def their_model(config: GPTConfig) -> torch.nn.Module:
    kind = "Qwen3" if config.qk_norm else "Llama"
    settings = getattr(transformers, f"{kind}Config")(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_seq_len,
        num_hidden_layers=config.n_layer,
        hidden_size=config.d_model,
        intermediate_size=config.ff_dim,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.kv_heads,
        head_dim=config.channels_per_head,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tie_embeddings,
    )
    return getattr(transformers, f"{kind}ForCausalLM")(settings).eval()


@pytest.mark.parametrize("qk_norm", [False, True], ids=["llama", "qwen3"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_logits_equal_transformers(shape, tied, qk_norm):
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=V,
        max_seq_len=32,
        n_layer=3,
        rope_theta=5000.0,
        norm_eps=1e-6,
        qk_norm=qk_norm,
        tie_embeddings=tied,
        **shape,
    )
    gpt = GPT(config).eval()
    for parameter in gpt.parameters():  # norms too: ones would hide a norm in the wrong place
        parameter.normal_(std=0.1) if parameter.dim() == 2 else parameter.normal_(1, 0.3)
    theirs = their_model(config)
    state = {their_name(name): value for name, value in gpt.state_dict().items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = state[name][:V]
    theirs.load_state_dict(state)

    tokens = torch.randint(V, (3, 29))
    ours, expected = gpt(tokens), theirs(tokens).logits
    assert expected.abs().max() > 1  # numbers large enough for a difference to show
    # 0.0 with torch 2.13 and transformers 5.23 on a CPU; other kernels may add in another order
    assert (ours - expected).abs().max().item() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_of_every_family_equal_transformers(family):
    torch.manual_seed(1)
    described = their_config(family)
    theirs = getattr(transformers, f"{FAMILIES[family][0]}ForCausalLM")(described).eval()
    for parameter in theirs.parameters():
        parameter.normal_(std=0.15) if parameter.dim() == 2 else parameter.normal_(1, 0.3)
    gpt = GPT(from_hf_config(described.to_dict())).eval()
    state = {from_hf(name): value for name, value in theirs.state_dict().items()}
    gpt.load_state_dict(state)

    tokens = torch.randint(described.vocab_size, (2, 90))  # longer than each window
    ours, expected = gpt(tokens), theirs(tokens).logits
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()

    cache = KVCache(gpt.config, 2, 90)  # and token by token, after a prompt of 50
    first = gpt(tokens[:, :50], Layout.prefill(torch.arange(50).expand(2, 50), 90), cache)
    rest = [
        gpt(tokens[:, t : t + 1], Layout.cached(torch.full((2, 1), t), 90), cache)
        for t in range(50, 90)
    ]
    cached = torch.cat([first, *rest], dim=1)
    assert (cached - expected).abs().max() <= 1e-5 * expected.abs().max()

    last = torch.tensor([30, 49])  # what reading prompts computes
    cache = KVCache(gpt.config, 2, 90)
    layout = Layout.prefill(torch.arange(50).expand(2, 50), 90)
    read = gpt(tokens[:, :50], layout, cache, only_B=last)[:, 0]
    assert (read - expected[torch.arange(2), last]).abs().max() <= 1e-5 * expected.abs().max()
