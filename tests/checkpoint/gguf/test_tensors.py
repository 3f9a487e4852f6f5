import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lit_llm.checkpoint.gguf.tensors import (
    Planned,
    interleaved,
    plan,
    rope_factors,
    to_gguf_name,
)
from lit_llm.checkpoint.hf.names import to_hf
from lit_llm.checkpoint.reader import Reader
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.rope import RopeScaling
from tests.checkpoint.gguf import made


@pytest.mark.parametrize("arch", ["LLAMA", "QWEN2", "QWEN3"])
def test_names_are_those_of_llama_cpps_own_converter(arch):
    """It is given Hugging Face's names, which the other table has."""
    flags = {"qkv_bias": arch == "QWEN2", "qk_norm": arch == "QWEN3"}
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch], n_blocks=2)
    for name in GPT(GPTConfig(n_layer=2, **flags)).state_dict():
        expected = table.get_name(to_hf(name), try_suffixes=(".weight", ".bias"))
        assert to_gguf_name(name) == expected


def test_rows_of_each_head_are_interleaved():
    """Two heads of four channels: each first half's rows come before their partners."""
    weight = torch.arange(8.0)[:, None] * torch.ones(3)
    assert interleaved(weight, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_factors_of_llama_3_are_those_of_transformers():
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    theirs = LlamaConfig(
        hidden_size=256,
        num_attention_heads=2,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "original_max_position_embeddings": 64,
            **scaling,
        },
    )
    slowed, _ = ROPE_INIT_FUNCTIONS["llama3"](theirs, torch.device("cpu"))
    unslowed = 1.0 / 500_000.0 ** (torch.arange(0, 128, 2) / 128)
    ours = GPTConfig(
        d_model=256,
        n_head=2,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(original_max_seq_len=64, **scaling),
    )
    factors = rope_factors(ours)
    torch.testing.assert_close(factors, unslowed / slowed)
    assert factors[0] == 1  # turns 10 times in 64 tokens: as it was
    assert factors[-1] == 8  # turns never


@pytest.mark.parametrize(
    ("type_", "encoded"),
    [
        ("F32", [0x00, 0x00, 0x80, 0x3F, 0x00, 0x01, 0x80, 0x3F]),
        ("F16", [0x00, 0x3C, 0x00, 0x3C]),
        ("BF16", [0x80, 0x3F, 0x80, 0x3F]),
    ],
)
def test_values_are_rounded_to_the_nearest(type_, encoded):
    """1 and 1 + 2^-15, which both 16-bit types round to 1."""
    planned = Planned("x", (2,), type_, lambda: torch.tensor([1.0, 1 + 2**-15]))
    assert list(planned.encoded().tobytes()) == encoded
    assert planned.nbytes == len(encoded)


def test_a_block_of_q8_0_has_a_scale_of_its_largest_value():
    """Of 1..32 and -254: a scale of 2, and halves of the values."""
    values = torch.arange(1.0, 33.0)
    values[7] = -254
    planned = Planned("x", (1, 32), "Q8_0", lambda: values[None])
    encoded = np.frombuffer(planned.encoded().tobytes(), np.int8)
    assert len(encoded) == planned.nbytes == 34
    assert encoded[:2].view(np.float16) == 2
    assert encoded[2 + 7] == -127
    assert encoded[2 + 1 : 2 + 6 : 2].tolist() == [1, 2, 3]  # of 2, 4 and 6


def test_what_float16_cannot_hold_is_refused():
    planned = Planned("output.weight", (2,), "F16", lambda: torch.tensor([1.0, -70_000.0]))
    with pytest.raises(ValueError, match=r"output\.weight has a weight of 7e\+04, .*bfloat16$"):
        planned.encoded()


@pytest.mark.parametrize("tied", [False, True])
def test_rows_that_pad_the_vocabulary_are_cut_and_tied_tables_are_one(tmp_path, tied):
    gpt = made.network(70, tie_embeddings=tied)
    folder = made.save(tmp_path / "a", gpt, None)
    tensors = {tensor.name: tensor for tensor in plan(Reader(folder), gpt.config, "float32")}
    assert gpt.embed.weight.shape == (128, 96)
    assert tensors["token_embd.weight"].shape == (70, 96)
    assert torch.equal(tensors["token_embd.weight"].make(), gpt.embed.weight[:70])
    assert ("output.weight" in tensors) is not tied


def test_norms_biases_and_odd_rows_stay_float32(tmp_path):
    gpt = made.network(70, qkv_bias=True)
    folder = made.save(tmp_path / "a", gpt, None)
    types = {t.name: t.type for t in plan(Reader(folder), gpt.config, "q8_0")}
    assert types["blk.1.attn_norm.weight"] == types["blk.1.attn_q.bias"] == "F32"
    assert types["blk.1.ffn_down.weight"] == "F32"  # rows of 72 weights, blocks of 32
    assert types["blk.1.ffn_up.weight"] == types["token_embd.weight"] == "Q8_0"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_written(kind, bad):
    planned = Planned("norm", (32,), kind, lambda: torch.full((32,), bad))
    with pytest.raises(ValueError, match="norm holds NaN or infinity: the run diverged"):
        planned.encoded()
