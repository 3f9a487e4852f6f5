"""How large a network is and what it costs, read off a skeleton that holds no numbers.

The skeleton is built on PyTorch's meta device: shapes without memory. So the counts are exact
for parts of a user's own too, and a model that fits no machine here can be counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import SkipInit
from lit_llm.model.lora import Lora, add_adapters


@dataclass(frozen=True)
class Size:
    """Counts of one network."""

    parameters: int
    """All weights; a tied embedding counts once."""

    embedding_parameters: int
    """Of these, rows of the token embedding that are only looked up."""

    flops_per_token: int
    """Training FLOPs (forward and backward) per token at the given sequence length."""

    cache_bytes_per_token: int
    """Keys and values of one token in generation, in 16 bits."""

    trained: int
    """Parameters that training changes: all, or the adapters alone."""

    def training_bytes(self, parameter_bytes: int = 4) -> int:
        """Weights, gradients and Adam's two float32 moments; activations come on top."""
        return self.parameters * parameter_bytes + self.trained * (parameter_bytes + 8)


def skeleton(config: GPTConfig, lora: Lora | None = None) -> GPT:
    """The network with shapes but without memory."""
    with torch.device("meta"), SkipInit():
        gpt = GPT(config)
        if lora is not None:
            add_adapters(gpt, lora)
        return gpt


def size(config: GPTConfig, seq_len: int | None = None, lora: Lora | None = None) -> Size:
    """Count a network without building it.

    FLOPs follow Chowdhery et al. (2022, arXiv:2204.02311, appendix B): 6 per weight of a matmul
    and token, and 12 * n_layer * n_head * head_dim * seq_len for attention's two matmuls. The
    causal mask is not credited, so that utilisation compares with other projects'. A frozen weight
    has no gradient of its own: 4 instead of 6.

    Args:
        config: the network
        seq_len: tokens of a row; None takes `max_seq_len`
        lora: adapters, which are counted too, beside weights that are frozen
    """
    model = skeleton(config, lora)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    looked_up = 0 if config.tie_embeddings else model.embed.weight.numel()
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    matmul = sum(p.numel() for p in matrices) - looked_up
    frozen = sum(p.numel() for p in matrices if not p.requires_grad)
    frozen -= 0 if model.embed.weight.requires_grad else looked_up
    seq_len = config.max_seq_len if seq_len is None else seq_len
    channels = config.n_head * config.channels_per_head
    return Size(
        parameters=parameters,
        embedding_parameters=looked_up,
        flops_per_token=6 * matmul - 2 * frozen + 12 * config.n_layer * channels * seq_len,
        cache_bytes_per_token=2 * 2 * config.n_layer * config.kv_heads * config.channels_per_head,
        trained=trained,
    )


def flops_per_token(config: GPTConfig, seq_len: int | None = None, lora: Lora | None = None) -> int:
    """Training FLOPs per token; see `size`."""
    return size(config, seq_len, lora).flops_per_token
