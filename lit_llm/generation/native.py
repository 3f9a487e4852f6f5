"""One token of some prompts by `step.cpp`: the whole network in one call, on a CPU.

It knows the network that `GPT` is without replaced parts, the one that exports to Llama and Qwen3,
in float32 and bfloat16, and with `Int8Linear`. TorchInductor knows all others (`fast.py`), but pays
for each operator and compiles for half a minute; this takes seconds.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.generation.linear import FastLinear, Int8Linear
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.cache import KVCache
from lit_llm.model.gpt import GPT, Block
from lit_llm.model.mlp import SwiGLU
from lit_llm.model.native import compiled_library, tiles_of
from lit_llm.model.norm import RMSNorm

SOURCE = Path(__file__).with_name("step.cpp")
MOST_ROWS = 16  # a tile has no more
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@cache
def library() -> ctypes.CDLL | None:
    """`step.cpp`; None where no compiler makes a library of it, or where it must not use tiles."""
    found = compiled_library(SOURCE)
    return found if tiles_of(found) is not False else None


class NativeStep:
    """Appends one token to each row of a cache.

    It reads the weights of `gpt` where they lie. Several threads may call it, each with its cache.

    Args:
        gpt: for which `is_known` holds
    """

    def __init__(self, gpt: GPT) -> None:
        config = gpt.config
        self._tensors: list[Tensor] = []  # what the addresses below point to
        self._layers = _addresses([a for block in gpt.blocks for a in self._layer(block)])
        self._head = _addresses([self._norm(gpt.norm), *self._matrix(gpt.lm_head)])
        self._sizes = _Sizes(
            n_layer=config.n_layer,
            d_model=config.d_model,
            n_head=config.n_head,
            kv_heads=config.kv_heads,
            head_dim=config.channels_per_head,
            ff_dim=config.ff_dim,
            vocab_size=config.vocab_size,
            eps=config.norm_eps,
        )
        self._rope = gpt.cos_SE, gpt.sin_SE
        self._dtype = gpt.embed.weight.dtype
        name = NAMES[self._dtype]
        name = f"int8_{name}" if isinstance(gpt.lm_head, Int8Linear) else name
        # Of several rows PyTorch's products are faster in bfloat16 without tiles, and int8 weights
        # are meant for one.
        several = self._dtype == torch.float32 or tiles_of(library())
        self._most_rows = MOST_ROWS if several and not name.startswith("int8") else 1
        self._step = getattr(library(), f"step_{name}")
        self._step.restype = None

    def fits(self, cache: KVCache) -> bool:
        """Whether it can read and write this cache, whose layers are alike."""
        k_BKSE, sizes = cache.layers[0].k_BKSE, self._sizes
        return (
            len(cache.layers) == sizes.n_layer
            and k_BKSE.shape[1:] == (sizes.kv_heads, cache.slots, sizes.head_dim)
            and len(k_BKSE) <= self._most_rows
            and k_BKSE.dtype == self._dtype
            and k_BKSE.is_contiguous()
            and k_BKSE.device.type == "cpu"
        )

    def __call__(self, x_BD: Tensor, positions_B: Tensor, cache: KVCache) -> Tensor:
        """The float32 logits (B, V) after one token of each row.

        Args:
            x_BD: their embeddings
            positions_B: int64; their places, 0 to slots - 1
            cache: that fits; takes the tokens' keys and values

        Raises:
            IndexError: the cache has no such slot.
        """
        rows = len(cache.layers[0].k_BKSE)  # it would read and write beyond the ends of others
        assert x_BD.shape == (rows, self._sizes.d_model)
        assert positions_B.shape == (rows,)
        positions_B = positions_B.contiguous()
        for position in positions_B.tolist():
            if not 0 <= position < cache.slots:  # it would be written all the same, elsewhere
                raise IndexError(f"position {position} is outside the cache of {cache.slots} slots")
        caches = _addresses(
            [kv.data_ptr() for layer in cache.layers for kv in (layer.k_BKSE, layer.v_BKSE)]
        )
        sizes = _Sizes.from_buffer_copy(self._sizes)  # another thread has another cache
        sizes.slots, sizes.rows, sizes.threads = cache.slots, rows, torch.get_num_threads()
        x_BD = x_BD.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        logits_BV = torch.empty(len(x_BD), sizes.vocab_size, dtype=torch.float32)
        cos_BE, sin_BE = (table_SE[positions_B] for table_SE in self._rope)
        tensors = (cos_BE, sin_BE, positions_B, x_BD, logits_BV)
        addresses = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
        self._step(ctypes.byref(sizes), self._layers, self._head, caches, *addresses)
        return logits_BV

    def _layer(self, block: Any) -> list[int | None]:
        """In the order of `Layer` in step.cpp."""
        norms = [self._norm(norm) for norm in _norms(block)]
        return [*norms, *(address for m in _matrices(block) for address in self._matrix(m))]

    def _norm(self, norm: RMSNorm | None) -> int | None:
        return None if norm is None else self._address(norm.weight.detach())

    def _matrix(self, linear: Any) -> tuple[int, int | None]:
        scale = self._address(linear.scale) if isinstance(linear, Int8Linear) else None
        return self._address(linear.weight.detach()), scale

    def _address(self, tensor: Tensor) -> int:
        self._tensors.append(tensor.contiguous())
        return self._tensors[-1].data_ptr()


class _Sizes(ctypes.Structure):
    """`Sizes` in step.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("n_layer", "d_model", "n_head", "kv_heads", "head_dim", "ff_dim")
        ),
        *((name, ctypes.c_int64) for name in ("vocab_size", "slots", "rows", "threads")),
        ("eps", ctypes.c_double),
    ]


def _addresses(values: list[Any]) -> Any:
    return (ctypes.c_void_p * len(values))(*values)


def is_known(gpt: GPT) -> bool:
    """Whether step.cpp computes what this model does.

    No part is replaced, has a hook or another size than the configuration says, as a factory of
    attentions or MLPs may give it: step.cpp would read beyond the ends of its weights.
    """
    config = gpt.config
    blocks: list[Any] = list(gpt.blocks)
    return (
        gpt.device.type == "cpu"
        and len(blocks) == config.n_layer
        and config.sliding_window is None
        and not config.qkv_bias
        and all(type(block) is Block and type(block.mlp) is SwiGLU for block in blocks)
        and all(type(block.attn) is GroupedQueryAttention for block in blocks)
        and all(block.attn.head_dim == config.channels_per_head for block in blocks)
        and not any(m._forward_hooks or m._forward_pre_hooks for m in gpt.modules())
        and _has_known_norms(gpt)
        and _has_known_matrices(gpt)
    )


def _has_known_norms(gpt: GPT) -> bool:
    D, E = gpt.config.d_model, gpt.config.channels_per_head
    norms = [(gpt.norm, D)]
    for block in gpt.blocks:
        norm_1, norm_2, *of_heads = _norms(block)
        norms += [(norm_1, D), (norm_2, D)]
        if of_heads != [None, None]:
            norms += [(norm, E) for norm in of_heads]
    dtype = gpt.embed.weight.dtype
    return all(
        type(norm) is RMSNorm
        and norm.eps == gpt.config.norm_eps
        and norm.weight.dtype == dtype
        and norm.weight.shape == (channels,)
        for norm, channels in norms
    )


def _has_known_matrices(gpt: GPT) -> bool:
    config = gpt.config
    D, E, F = config.d_model, config.channels_per_head, config.ff_dim
    Q, KV = config.n_head * E, config.kv_heads * E
    shapes = [(Q, D), (KV, D), (KV, D), (D, Q), (F, D), (F, D), (D, F)]
    matrices = [pair for block in gpt.blocks for pair in zip(_matrices(block), shapes, strict=True)]
    matrices.append((gpt.lm_head, (config.padded_vocab_size, D)))
    kind, dtype = type(gpt.lm_head), gpt.embed.weight.dtype
    if dtype not in NAMES or kind not in (FastLinear, Int8Linear):
        return False
    dtype = torch.int8 if kind is Int8Linear else dtype
    return all(
        type(matrix) is kind
        and matrix.weight.shape == shape
        and matrix.weight.dtype == dtype
        and (kind is FastLinear or matrix.scale.dtype == torch.float32)  # a cast rounds them too
        for matrix, shape in matrices
    )


def _norms(block: Any) -> list[Any]:
    return [block.norm_1, block.norm_2, block.attn.q_norm, block.attn.k_norm]


def _matrices(block: Any) -> list[Any]:
    attn, mlp = block.attn, block.mlp
    of_attn = [attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj]
    return [*of_attn, mlp.gate_proj, mlp.up_proj, mlp.down_proj]
