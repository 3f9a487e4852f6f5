"""What is a weight called in GGUF, in which order are its rows, and of which type is it?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.bundle import MODEL, TIED
from lit_llm.checkpoint.gguf.architecture import architecture
from lit_llm.checkpoint.gguf.file import library
from lit_llm.checkpoint.reader import Reader
from lit_llm.model.config import GPTConfig

TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}
"""--dtype -> llama.cpp's name of a type."""

Q8_BLOCK, Q8_BYTES = 32, 34
"""Weights that share a scale in Q8_0, and their bytes: the scale's two and one each."""

_OUTSIDE = {
    "embed.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INSIDE = {
    "norm_1": "attn_norm",
    "norm_2": "ffn_norm",
    **{f"attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "attn.o_proj": "attn_output",
    **{f"attn.{part}_norm": f"attn_{part}_norm" for part in "qk"},
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}
_OURS = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class Planned:
    """A tensor of the file to be."""

    name: str
    shape: tuple[int, ...]
    type: str
    """One of the values of `TYPES`."""

    make: Callable[[], Tensor]
    """Reads it, with llama.cpp's rows, in float32 and not yet rounded to `type`."""

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        count = math.prod(self.shape)
        if self.type == "Q8_0":
            return count // Q8_BLOCK * Q8_BYTES
        return count * (4 if self.type == "F32" else 2)

    def encoded(self) -> Any:
        """As the file holds it: a NumPy array of `nbytes` bytes.

        Raises:
            ValueError: float16 does not reach as far as a weight, or it is no number.
        """
        values = self.make()
        if not bool(values.isfinite().all()):
            raise ValueError(
                f"{self.name} holds NaN or infinity: the run diverged, use another one"
            )
        if self.type == "Q8_0":
            gguf = library()
            return gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType.Q8_0)
        if self.type == "F16":
            if not bool(values.half().isfinite().all()):
                raise ValueError(
                    f"{self.name} has a weight of {values.abs().max().item():.3g}, float16 ends at "
                    "65,504: give --dtype bfloat16"
                )
            return values.half().numpy()
        if self.type == "BF16":
            return values.bfloat16().view(torch.int16).numpy()
        return values.numpy()


def to_gguf_name(name: str) -> str:
    """Name in GGUF of a weight of `GPT.state_dict()`.

    Raises:
        KeyError: llama.cpp has no such weight.
    """
    if match := _OURS.fullmatch(name):
        layer, module, kind = match.groups()
        return f"blk.{layer}.{_INSIDE[module]}.{kind}"
    return _OUTSIDE[name]


def interleaved(weight: Tensor, n_head: int) -> Tensor:
    """Reorder the rows of q_proj or k_proj from pairs (i, i + E/2) to pairs (2i, 2i + 1).

    Attention scores do not change, for queries and keys are reordered alike.
    """
    return weight.unflatten(0, (n_head, 2, -1)).transpose(1, 2).flatten(0, 2)


def plan(reader: Reader, config: GPTConfig, dtype: str) -> list[Planned]:
    """Everything that the file is to hold; reads no tensor yet.

    Args:
        reader: of the checkpoint, whose weights are those of `config`
        config: its network
        dtype: of the matrices, a key of `TYPES`; norms and biases stay float32, as llama.cpp
            computes with them
    """
    weights = reader.skeleton()
    if config.tie_embeddings:
        weights.pop(TIED)  # llama.cpp takes the embedding where there is no output.weight
    tensors = []
    for name, described in weights.items():
        shape = tuple(described.shape)
        if name in _TABLES:
            shape = (config.vocab_size, *shape[1:])
        make = _maker(reader, config, name)
        tensors.append(Planned(to_gguf_name(name), shape, _type(shape, dtype), make))
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
        factors = rope_factors(config)
        tensors.append(Planned("rope_freqs.weight", tuple(factors.shape), "F32", lambda: factors))
    return tensors


_TABLES = ("embed.weight", TIED)  # their rows that pad the vocabulary are cut


def _type(shape: tuple[int, ...], dtype: str) -> str:
    if len(shape) == 1 or (dtype == "q8_0" and shape[-1] % Q8_BLOCK):  # no whole blocks in a row
        return "F32"
    return TYPES[dtype]


def _maker(reader: Reader, config: GPTConfig, name: str) -> Callable[[], Tensor]:
    heads = {"attn.q_proj.weight": config.n_head, "attn.k_proj.weight": config.kv_heads}
    n_head = next((n for end, n in heads.items() if name.endswith(end)), None)

    def make() -> Tensor:
        tensor = reader.read(MODEL + name).float()
        if name in _TABLES:
            tensor = tensor[: config.vocab_size]
        if n_head is not None and architecture(config) == "llama":
            tensor = interleaved(tensor, n_head)
        return tensor.contiguous()

    return make


def rope_factors(config: GPTConfig) -> Tensor:
    """By how much each rotation is slowed, of shape (E/2,): llama.cpp divides by it."""
    assert config.rope_scaling is not None
    head_dim = config.channels_per_head
    pair = torch.arange(0, head_dim, 2, dtype=torch.float64)
    frequency = 1.0 / config.rope_theta ** (pair / head_dim)
    return (frequency / config.rope_scaling.apply(frequency)).float()
