import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights, initial_value


def initialized(seed: int = 5, **settings) -> GPT:
    gpt = GPT(GPTConfig(**{"n_layer": 2, "d_model": 40, "n_head": 5, "vocab_size": 70} | settings))
    init_weights(gpt, seed, gpt.config.n_layer)
    return gpt


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before():
    torch.manual_seed(0)
    first = initialized().state_dict()
    torch.manual_seed(1)
    second = initialized().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_weights():
    assert not torch.equal(initialized(5).embed.weight, initialized(6).embed.weight)


def test_no_two_parameters_start_equal():
    gpt = initialized()
    matrices = [p.flatten()[:20] for p in gpt.parameters() if p.dim() == 2]
    assert len({tuple(m.tolist()) for m in matrices}) == len(matrices)


def test_another_layer_leaves_the_others_as_they_are_but_for_the_residual_scale():
    two, three = initialized(n_layer=2).state_dict(), initialized(n_layer=3).state_dict()
    assert two.keys() < three.keys()
    for name, value in two.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.testing.assert_close(value * 2**0.5, three[name] * 3**0.5)
        else:
            assert torch.equal(value, three[name])


def test_the_spread_is_gpt_2s():
    state = initialized(n_layer=8, d_model=320).state_dict()
    assert state["blocks.3.attn.q_proj.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    assert state["blocks.3.mlp.gate_proj.weight"].std().item() == pytest.approx(0.02, rel=0.02)
    # 0.02 / sqrt(2 * 8) = 0.005
    assert state["blocks.3.attn.o_proj.weight"].std().item() == pytest.approx(0.005, rel=0.02)
    assert state["blocks.3.mlp.down_proj.weight"].std().item() == pytest.approx(0.005, rel=0.02)


def test_norms_keep_their_ones():
    gpt = initialized(qk_norm=True)
    vectors = [p for p in gpt.parameters() if p.dim() == 1]
    assert len(vectors) == 2 * 4 + 1  # per layer: two norms, q and k; and the last
    assert all(torch.equal(v, torch.ones_like(v)) for v in vectors)


def test_a_tied_projection_starts_as_the_embedding():
    tied = initialized(tie_embeddings=True)
    assert tied.lm_head.weight is tied.embed.weight
    assert torch.equal(tied.embed.weight, initialized().embed.weight)


def test_values_are_drawn_in_float32_whatever_the_default_dtype():
    expected = initial_value("x", torch.Size([3, 4]), seed=1, std=0.5)
    try:
        torch.set_default_dtype(torch.bfloat16)
        actual = initial_value("x", torch.Size([3, 4]), seed=1, std=0.5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_biases_of_projections_start_at_zero():
    config = GPTConfig(n_layer=2, d_model=8, n_head=2, qkv_bias=True)
    gpt = GPT(config)
    assert gpt.blocks[1].attn.k_proj.bias.abs().max() > 0  # as PyTorch draws it
    init_weights(gpt, 3, config.n_layer)
    biases = [p for name, p in gpt.named_parameters() if name.endswith("bias")]
    assert len(biases) == 6
    assert all(not bias.any() for bias in biases)
