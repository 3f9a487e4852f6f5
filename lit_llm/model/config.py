"""The one description of a network: `GPT(config)` needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lit_llm.model.attention import Attention, GroupedQueryAttention
from lit_llm.model.mlp import SwiGLU
from lit_llm.model.rope import RopeScaling


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Sizes and parts of a GPT. The defaults train on a laptop in minutes.

    The string under a field is its help text: `python cli.py fit --help` prints it.
    """

    vocab_size: int = 512
    """Token ids that exist. Comes from the tokenizer; never set it in YAML."""

    max_seq_len: int = 256
    """Longest context, in tokens. Comes from data.seq_len; never set it in YAML."""

    n_layer: int = 4
    """Transformer blocks."""

    d_model: int = 128
    """Width of the residual stream, in channels."""

    n_head: int = 4
    """Query heads of each attention."""

    n_kv_head: int | None = None
    """Key/value heads, each shared by n_head / n_kv_head query heads; null: as many as n_head."""

    head_dim: int | None = None
    """Channels of one head; null: d_model / n_head."""

    d_ff: int | None = None
    """Width inside the MLP; null: 8/3 of d_model, rounded up to a multiple of 64."""

    rope_theta: float = 10_000.0
    """Base of the RoPE wavelengths."""

    rope_scaling: RopeScaling | None = None
    """Slower rotations for texts longer than a model was first trained on; null: none."""

    sliding_window: int | None = None
    """Each token sees only so many, itself included (Mistral); null: all before it."""

    full_layers: int = 0
    """With a sliding window: the first layers that see all the same."""

    norm_eps: float = 1e-5
    """Added to the mean square before its root, in every RMSNorm."""

    qkv_bias: bool = False
    """Add a bias to queries, keys and values, as Qwen2 does."""

    qk_norm: bool = False
    """Norm queries and keys per head: steadier at high learning rates."""

    tie_embeddings: bool = False
    """Use the token embedding as the output projection too."""

    dropout: float = 0.0
    """Share of attention weights and of residual updates dropped in training."""

    pad_vocab_to: int = 64
    """Rows of the embedding are rounded up to a multiple of this: matmuls like round sizes."""

    attention: Callable[[GPTConfig, int], Attention] = GroupedQueryAttention
    """Builds the attention of one layer from (config, layer)."""

    mlp: Callable[[GPTConfig, int], nn.Module] = SwiGLU
    """Builds the MLP of one layer from (config, layer)."""

    def __post_init__(self) -> None:
        """Reject sizes that do not fit, before any memory is allocated."""
        for name in ("vocab_size", "max_seq_len", "n_layer", "d_model", "n_head", "pad_vocab_to"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is no size: give 1 or more")
        for name in ("head_dim", "d_ff", "sliding_window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} is no size: give 1 or more, or null"
                )
        if self.head_dim is None and self.d_model % self.n_head:
            raise ValueError(
                f"d_model={self.d_model} does not split into n_head={self.n_head} heads: "
                f"make d_model a multiple of {self.n_head}, or give head_dim"
            )
        if self.kv_heads < 1 or self.n_head % self.kv_heads:
            raise ValueError(
                f"n_head={self.n_head} query heads cannot share n_kv_head={self.n_kv_head} "
                f"key/value heads evenly: make n_kv_head a divisor of {self.n_head}"
            )
        if self.channels_per_head % 2:
            raise ValueError(
                f"head_dim={self.channels_per_head} is odd, but RoPE turns channels in pairs: "
                "make d_model / n_head even, or give an even head_dim"
            )
        for name in ("rope_theta", "norm_eps"):
            if hasattr(self, name) and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a number above 0")
        if self.full_layers < 0 or (self.full_layers and self.sliding_window is None):
            raise ValueError(
                f"full_layers={self.full_layers} counts layers beside those with a sliding_window "
                f"({self.sliding_window}): give 0 or more, and a window"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is no share: give 0 <= dropout < 1")

    @property
    def kv_heads(self) -> int:
        """Key/value heads of each attention."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def channels_per_head(self) -> int:
        """Channels of one head."""
        return self.d_model // self.n_head if self.head_dim is None else self.head_dim

    @property
    def ff_dim(self) -> int:
        """Width inside the MLP."""
        return self.d_ff if self.d_ff is not None else -(-8 * self.d_model // (3 * 64)) * 64

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table."""
        return -(-self.vocab_size // self.pad_vocab_to) * self.pad_vocab_to
