"""The network: token ids in, logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from lit_llm.model.cache import KVCache, LayerCache
from lit_llm.model.config import GPTConfig
from lit_llm.model.layout import Layout
from lit_llm.model.norm import RMSNorm
from lit_llm.model.rope import Rope, rope_table
from lit_llm.model.tied import TiedEmbedding

Result = TypeVar("Result")
Head = Callable[[Tensor, Callable[[Tensor], Tensor]], Result]
"""Called inside `GPT.forward` with the final hidden_BTD and the projection to float32 logits."""


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.norm_1 = RMSNorm(config.d_model, config.norm_eps)
        self.attn = config.attention(config, layer)
        self.norm_2 = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = config.mlp(config, layer)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache | None = None
    ) -> Tensor:
        x_BTD = x_BTD + self.drop(self.attn(self.norm_1(x_BTD), rope, layout, cache))
        return x_BTD + self.drop(self.mlp(self.norm_2(x_BTD)))

    def remember(self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache) -> bool:
        """Write keys and values alone, if the attention can; see `Attention.remember`."""
        if self._forward_pre_hooks:  # FSDP2's gathers the weights, and only `forward` calls it
            return False
        return self.attn.remember(self.norm_1(x_BTD), rope, layout, cache)


class GPT(nn.Module):
    """A transformer language model: what `LlamaForCausalLM` computes, or with `qk_norm` `Qwen3`."""

    cos_SE: Tensor
    sin_SE: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        kind = TiedEmbedding if config.tie_embeddings else nn.Embedding
        self.embed = kind(config.padded_vocab_size, config.d_model)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed.weight
        self._tabulate_rope()

    def forward(
        self,
        tokens_BT: Tensor,
        layout: Layout | None = None,
        cache: KVCache | None = None,
        head: Head[Result] | None = None,
        only_B: Tensor | None = None,
    ) -> Tensor | Result:
        """Run the network.

        Args:
            tokens_BT: int64 token ids
            layout: who sees whom; None: each row is one document, seen causally
            cache: keys and values of earlier tokens; needs `Layout.cached`, or `Layout.prefill`
                for the first tokens
            head: computes the result from the hidden states and the output projection, such as
                a loss that never holds all logits. It runs in here because sharding strategies
                hold a parameter whole only while `forward` runs.
            only_B: with a cache, the one position of each row whose result is wanted; the last
                block then computes no other, T is 1 for the result

        Returns:
            logits_BTV, float32, or what `head` returns.

        Raises:
            ValueError: a row is longer than `max_seq_len`.
        """
        if tokens_BT.size(1) > self.config.max_seq_len:
            raise ValueError(
                f"a row of {tokens_BT.size(1)} tokens is longer than "
                f"max_seq_len={self.config.max_seq_len}: shorten it, or train with a larger "
                "data.seq_len"
            )
        layout = layout or Layout.plain(tokens_BT)
        rope, layouts = self._rope(layout), self._layouts(layout, cache)
        x_BTD = self.drop(self.embed(tokens_BT))
        for layer, block in enumerate(self.blocks):
            layer_cache = cache.layers[layer] if cache else None
            if only_B is not None and cache and layer == len(self.blocks) - 1:
                last = cast(Block, block)
                if last.remember(x_BTD, rope, layouts[layer], cache.layers[layer]):
                    x_BTD = x_BTD.take_along_dim(only_B[:, None, None], dim=1)
                    layout = Layout.cached(only_B[:, None], cache.slots)
                    rope, layouts = self._rope(layout), self._layouts(layout, cache)
            x_BTD = block(x_BTD, rope, layouts[layer], layer_cache)
        if only_B is not None and x_BTD.size(1) > 1:
            x_BTD = x_BTD.take_along_dim(only_B[:, None, None], dim=1)
        hidden_BTD = self.norm(x_BTD)
        return head(hidden_BTD, self.project) if head else self.project(hidden_BTD)

    def _layouts(self, layout: Layout, cache: KVCache | None) -> list[Layout]:
        """What each layer may see: all of the layout, or a window of it."""
        n_full, window = self.config.full_layers, self.config.sliding_window
        if window is None:
            return [layout] * len(self.blocks)
        near = layout.within(window, cache.slots if cache else None)
        return [layout] * n_full + [near] * (len(self.blocks) - n_full)

    def _rope(self, layout: Layout) -> Rope:
        positions_BT = layout.positions_BT
        return self.cos_SE[positions_BT][:, None], self.sin_SE[positions_BT][:, None]

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to float32 logits (..., V); rows that pad the table are cut."""
        return self.padded_logits(hidden)[..., : self.config.vocab_size].float()

    def padded_logits(self, hidden: Tensor) -> Tensor:
        """All columns of the output projection, in the dtype of its arithmetic; for a loss."""
        return self.lm_head(hidden)

    def _tabulate_rope(self) -> None:
        config = self.config
        cos_SE, sin_SE = rope_table(
            config.max_seq_len,
            config.channels_per_head,
            theta=config.rope_theta,
            scaling=config.rope_scaling,
            device=self.device,
        )
        self.register_buffer("cos_SE", cos_SE, persistent=False)
        self.register_buffer("sin_SE", sin_SE, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GPT:
        """Rebuild the RoPE tables after every `to`, `bfloat16` and `to_empty`.

        A cast would round them to bfloat16, and `to_empty` would leave them unset: no checkpoint
        holds them.
        """
        super()._apply(fn, recurse)
        self._tabulate_rope()
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.embed.weight.device
