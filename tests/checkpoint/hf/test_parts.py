import copy

import torch
from torch import nn

from lit_llm.checkpoint.hf import parts
from lit_llm.checkpoint.hf.parts import in_float32
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT


@torch.no_grad()
def test_a_model_of_16_bits_computes_as_its_float32_copy_does(monkeypatch):
    monkeypatch.setattr(parts, "ROWS", 7)  # so that matrices are cut
    config = GPTConfig(vocab_size=50, n_layer=2, d_model=16, n_head=2, qkv_bias=True, qk_norm=True)
    narrow = GPT(config).bfloat16().eval()
    wide = copy.deepcopy(narrow).float()
    before = {name: tensor.clone() for name, tensor in narrow.state_dict().items()}
    tokens = torch.arange(30).reshape(2, 15)
    expected = wide(tokens)
    assert (narrow(tokens) - expected).abs().max() > 1e-3
    in_float32(narrow)
    assert (narrow(tokens) - expected).abs().max() < 1e-5
    kept = {name: t for name, t in narrow.state_dict().items() if t.dtype == torch.bfloat16}
    assert len(kept) >= 16  # matrices stay as narrow as they are
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())


def test_other_modules_get_wide_parameters():
    module = nn.LayerNorm(3).bfloat16()
    in_float32(module)
    assert module.weight.dtype == torch.float32
