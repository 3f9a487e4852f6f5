"""Attention as its formula: the lowest rung of the ladder of benchmarks/gpu_ladder.py.

Put into any run by YAML, as every other attention: model.gpt.attention.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_llm.model.attention import Attention
from lit_llm.model.cache import LayerCache
from lit_llm.model.config import GPTConfig
from lit_llm.model.layout import Layout
from lit_llm.model.rope import Rope, apply_rope


class PlainAttention(Attention):
    """Softmax of all scores, which are held in memory: for training, without a cache or dropout.

    Parameters have the names and shapes of `GroupedQueryAttention`, all heads with keys of their
    own.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.head_dim = config.channels_per_head
        channels = config.n_head * self.head_dim
        for name in ("q_proj", "k_proj", "v_proj"):
            self.add_module(name, nn.Linear(config.d_model, channels, bias=False))
        self.o_proj = nn.Linear(channels, config.d_model, bias=False)

    def forward(
        self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache | None
    ) -> Tensor:
        q_BHTE, k_BHSE, v_BHSE = (
            self.get_submodule(name)(x_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        q_BHTE, k_BHSE = apply_rope(q_BHTE, rope), apply_rope(k_BHSE, rope)
        scores_BHTS = q_BHTE @ k_BHSE.mT / math.sqrt(self.head_dim)
        visible = layout.mask_B1TS
        if visible is None and layout.is_causal:
            T = x_BTD.size(1)
            visible = torch.ones(T, T, dtype=torch.bool, device=x_BTD.device).tril()
        if visible is not None:
            scores_BHTS = scores_BHTS.masked_fill(~visible, -math.inf)
        out_BHTE = scores_BHTS.softmax(-1).type_as(v_BHSE) @ v_BHSE
        return self.o_proj(out_BHTE.transpose(1, 2).flatten(-2))
