from functools import partial

import pytest

from lit_llm.checkpoint.gguf.architecture import architecture, refuse_others, sizes
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.config import GPTConfig
from lit_llm.model.rope import RopeScaling

SIZES = {"max_seq_len": 20, "n_layer": 3, "d_model": 24, "n_head": 6}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "llama"),
        ({"qkv_bias": True}, "qwen2"),
        ({"qk_norm": True}, "qwen3"),
        ({"qk_norm": True, "qkv_bias": True}, "qwen3"),
    ],
)
def test_each_network_has_its_counterpart(flags, name):
    config = GPTConfig(**SIZES, **flags)
    refuse_others(config, {})
    assert architecture(config) == name
    assert {key.partition(".")[0] for key in sizes(config)} == {name}


def test_sizes_are_those_of_the_network():
    scaling = RopeScaling(kind="linear", factor=4)
    config = GPTConfig(**SIZES, n_kv_head=2, head_dim=8, d_ff=40, rope_scaling=scaling)
    described = sizes(config)
    assert described["llama.attention.head_count_kv"] == 2
    assert described["llama.attention.key_length"] == described["llama.rope.dimension_count"] == 8
    assert described["llama.feed_forward_length"] == 40
    assert described["llama.rope.scaling.type"] == "linear"
    assert type(described["llama.rope.scaling.factor"]) is float  # llama.cpp refuses 4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"sliding_window": 19}, "sliding_window=19 is shorter than max_seq_len=20"),
        ({"sliding_window": 19, "full_layers": 2}, "sliding_window=19 is shorter"),
        ({"qkv_bias": True, "head_dim": 8}, "6 heads of 8 channels beside d_model=24"),
        ({"qk_norm": True, "rope_scaling": RopeScaling()}, "llama.cpp's qwen3 has only linear"),
        ({"attention": partial(GroupedQueryAttention)}, "attention=GroupedQueryAttention is none"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused_in_a_line(flags, said):
    with pytest.raises(ValueError, match=said) as refused:
        refuse_others(GPTConfig(**SIZES, **flags), {})
    assert str(refused.value).endswith("; export --to checkpoint keeps all of it")
    assert "\n" not in str(refused.value)


def test_parts_of_ones_own_are_refused(theirs):
    with pytest.raises(
        ValueError, match=r"mlp=Shared is none of llama\.cpp's: it has SwiGLU alone"
    ):
        refuse_others(GPTConfig(**SIZES, mlp=theirs.Shared), {})


def test_masked_language_models_are_refused():
    with pytest.raises(ValueError, match="a bidirectional model"):
        refuse_others(GPTConfig(**SIZES), {"bidirectional": True})


@pytest.mark.parametrize("flags", [{"sliding_window": 20}, {"sliding_window": 4, "full_layers": 3}])
def test_a_window_that_hides_nothing_is_none(flags):
    refuse_others(GPTConfig(**SIZES, **flags), {})
