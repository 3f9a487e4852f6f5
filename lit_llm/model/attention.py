"""Self-attention, the part of the model that is swapped most often.

To try another one, subclass `Attention` in a file of your own and name it in YAML:

    model:
      gpt:
        attention:
          class_path: my_project.SlidingWindowAttention
          init_args: {window: 512}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.model import tiled_attention, varlen
from lit_llm.model.causal_attention import (
    attend_one,
    causal_attention,
    is_faster,
    one_is_faster,
)
from lit_llm.model.norm import RMSNorm
from lit_llm.model.rope import Rope, apply_rope

if TYPE_CHECKING:
    from lit_llm.model.cache import LayerCache
    from lit_llm.model.config import GPTConfig
    from lit_llm.model.layout import Layout


class Attention(nn.Module, ABC):
    """What the rest of the model may assume of any attention, built from (config, layer)."""

    @abstractmethod
    def forward(
        self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache | None
    ) -> Tensor:
        """Mix information across the positions that `layout` lets see each other.

        Args:
            x_BTD: the normed residual stream
            rope: rotations of the batch's positions, for `apply_rope`
            layout: visibility; a key that it hides must not change the result
            cache: where to write the new keys and values and to read the old ones; None when
                the whole sequence is in x

        Returns:
            What is added to the residual stream, (B, T, D).
        """

    def remember(self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache) -> bool:
        """Do of `forward` no more than to write keys and values into the cache.

        Returns:
            Whether it has; else reading a prompt computes the whole last block for nothing.
        """
        return False


class GroupedQueryAttention(Attention):
    """Attention whose query heads share key/value heads (Ainslie et al., 2023, arXiv:2305.13245).

    `n_kv_head == n_head` is multi-head attention; `n_kv_head == 1` is multi-query attention.
    With `qk_norm`, queries and keys are normed per head before they turn (Henry et al., 2020,
    arXiv:2010.04245), as in Qwen3.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        D, H, K = config.d_model, config.n_head, config.kv_heads
        E = config.channels_per_head
        self.head_dim = E
        self.dropout = config.dropout
        self.q_proj = nn.Linear(D, H * E, bias=config.qkv_bias)
        self.k_proj = nn.Linear(D, K * E, bias=config.qkv_bias)
        self.v_proj = nn.Linear(D, K * E, bias=config.qkv_bias)
        self.o_proj = nn.Linear(H * E, D, bias=False)
        self.q_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(E, config.norm_eps) if config.qk_norm else None
        self.enable_gqa, self.groups = H != K, H // K

    def forward(
        self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache | None
    ) -> Tensor:
        q_BHTE = self._split_heads(self.q_proj(x_BTD))
        if self.q_norm is not None:
            q_BHTE = self.q_norm(q_BHTE)
        q_BHTE = apply_rope(q_BHTE, rope)
        k_BKSE, v_BKSE = self._keys_and_values(x_BTD, rope, layout, cache)

        dropout = self.dropout if self.training else 0.0
        if cache is None and layout.documents and varlen.can_attend(q_BHTE, dropout):
            out_BHTE = varlen.attend(q_BHTE, k_BKSE, v_BKSE, layout.documents)
        elif (
            layout.is_causal
            and not dropout
            and cache is None
            and tiled_attention.can_attend(q_BHTE)
        ):
            out_BHTE = tiled_attention.attend(q_BHTE, *self._for_each_query(k_BKSE, v_BKSE))
        elif layout.is_causal and not dropout and is_faster(q_BHTE, reads=cache is not None):
            out_BHTE = causal_attention(q_BHTE, *self._for_each_query(k_BKSE, v_BKSE))
        elif layout.mask_B1TS is not None and not dropout and one_is_faster(q_BHTE):
            out_BHTE = attend_one(q_BHTE, k_BKSE, v_BKSE, layout.mask_B1TS)
        else:
            out_BHTE = F.scaled_dot_product_attention(
                q_BHTE,
                k_BKSE,
                v_BKSE,
                attn_mask=layout.mask_B1TS,
                is_causal=layout.is_causal,
                dropout_p=dropout,
                enable_gqa=self.enable_gqa,
            )
        return self.o_proj(out_BHTE.transpose(1, 2).flatten(-2))

    def remember(self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache) -> bool:
        # Whoever overrides `forward`, or hooks it, may change x before keys are made of it.
        own = type(self).forward is GroupedQueryAttention.forward and "forward" not in vars(self)
        if not own or self._forward_pre_hooks:
            return False
        self._keys_and_values(x_BTD, rope, layout, cache)
        return True

    def _keys_and_values(
        self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor]:
        """(B, K, S, E) of all that queries may see, after those of x have been cached."""
        k_BKTE = self._split_heads(self.k_proj(x_BTD))
        v_BKTE = self._split_heads(self.v_proj(x_BTD))
        if self.k_norm is not None:
            k_BKTE = self.k_norm(k_BKTE)
        k_BKTE = apply_rope(k_BKTE, rope)
        if cache is None:
            return k_BKTE, v_BKTE
        if layout.is_causal:  # these tokens are the first: they see no others
            cache.begin(k_BKTE, v_BKTE)
            return k_BKTE, v_BKTE
        cache.write(k_BKTE, v_BKTE, layout.positions_BT)
        return cache.k_BKSE, cache.v_BKSE

    def _for_each_query(self, *heads: Tensor) -> tuple[Tensor, ...]:
        """(B, K, S, E) -> (B, H, S, E), where heads of queries share them."""
        if not self.enable_gqa:
            return heads
        return tuple(x.repeat_interleave(self.groups, dim=1) for x in heads)

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, T, heads * E) -> (B, heads, T, E)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
