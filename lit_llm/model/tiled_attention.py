"""Causal attention in bfloat16 on a CPU with AMX, for training and for reading a prompt.

There PyTorch's fused attention multiplies each little block by a call of its own.
`tiled_attention.cpp` takes a head at a time. Forward and backward of 48 heads of 64 channels at 256
tokens take 3.7 instead of 11.4 ms, of 12 heads at 1024 tokens 6.3 instead of 19 ms (two threads).
The gradients of keys and values are nearer to float32's, for sums over queries are never rounded on
their way. Probabilities are computed again, so that memory grows with the row and not its square.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_llm.model.native import compiled_library, operator, tiles_of

SOURCE = Path(__file__).with_name("tiled_attention.cpp")
CHANNELS = 32  # of a head: a multiple of these
MOST_CHANNELS = 256  # beyond, a head of 1024 tokens leaves the second cache
PROMPT = 256  # tokens from which reading one is faster than with PyTorch

# Asked once and not in each forward pass, where the question would end torch.compile's graph.
CPU_IS_SUITED = torch.cpu._is_amx_tile_supported() and torch.cpu._is_avx512_bf16_supported()


def can_attend(q_BHTE: Tensor) -> bool:
    """Whether these queries are on a CPU and have the form that the library knows."""
    return (
        CPU_IS_SUITED
        and q_BHTE.dtype == torch.bfloat16
        and q_BHTE.device.type == "cpu"
        and (torch.is_grad_enabled() or q_BHTE.size(-2) >= PROMPT)
        and q_BHTE.size(-1) % CHANNELS == 0
        and q_BHTE.size(-1) <= MOST_CHANNELS
        and is_there()
    )


_there: bool | None = None  # not asked yet


def is_there() -> bool:
    """Whether a compiler has made the library, and the system lets it use the tiles.

    torch.compile can read the answer and not find it: ask before a block is compiled.
    """
    global _there
    if _there is None:
        if torch.compiler.is_compiling():
            return False
        _there = library() is not None
    return _there


@cache
def library() -> ctypes.CDLL | None:
    """`tiled_attention.cpp`; None where it cannot be used."""
    found = compiled_library(SOURCE)
    return found if tiles_of(found) else None


def attend(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
    """What `F.scaled_dot_product_attention(q, k, v, is_causal=True)` computes."""
    return _TiledAttention.apply(q_BHTE, k_BHTE, v_BHTE)


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
        out_BHTE, lse_BHT = _attention(q_BHTE, k_BHTE, v_BHTE)
        ctx.save_for_backward(q_BHTE, k_BHTE, v_BHTE, out_BHTE, lse_BHT)
        return out_BHTE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BHTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor, Tensor] = _gradients(gradient_BHTE, *ctx.saved_tensors)
        return gradients


def _forward(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> tuple[Tensor, Tensor]:
    """The heads' outputs, and the logarithms of the rows' sums of exponentials."""
    given = [_rows(x) for x in (q_BHTE, k_BHTE, v_BHTE)]
    out_BHTE, lse_BHT = _empty_attention(q_BHTE)
    _library().causal_attention_forward(
        _sizes(q_BHTE), *(_view(x) for x in (*given, out_BHTE)), _address(lse_BHT)
    )
    return out_BHTE, lse_BHT


def _backward(
    gradient_BHTE: Tensor,
    q_BHTE: Tensor,
    k_BHTE: Tensor,
    v_BHTE: Tensor,
    out_BHTE: Tensor,
    lse_BHT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    given = [_rows(x) for x in (gradient_BHTE, q_BHTE, k_BHTE, v_BHTE, out_BHTE)]
    found = _empty_gradients(q_BHTE)
    _library().causal_attention_backward(
        _sizes(q_BHTE), *(_view(x) for x in given), _address(lse_BHT), *(_view(x) for x in found)
    )
    return found


def _empty_attention(q_BHTE: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    return _empty(q_BHTE), q_BHTE.new_empty(q_BHTE.shape[:3], dtype=torch.float32)


def _empty_gradients(q_BHTE: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(q_BHTE), _empty(q_BHTE), _empty(q_BHTE)


def _empty(q_BHTE: Tensor) -> Tensor:
    """In the order of the residual stream, to which heads and their gradients go next."""
    B, H, T, E = q_BHTE.shape
    return q_BHTE.new_empty(B, T, H, E).transpose(1, 2)


_attention = operator(
    "tiled_attention(Tensor q, Tensor k, Tensor v) -> (Tensor, Tensor)", _forward, _empty_attention
)
_gradients = operator(
    "tiled_attention_backward(Tensor gradient, Tensor q, Tensor k, Tensor v, Tensor out,"
    " Tensor lse) -> (Tensor, Tensor, Tensor)",
    _backward,
    _empty_gradients,
)


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found


def _rows(x_BHTE: Tensor) -> Tensor:
    """The same with contiguous rows."""
    return x_BHTE if x_BHTE.stride(-1) == 1 else x_BHTE.contiguous()


class _Sizes(ctypes.Structure):
    """`Sizes` in tiled_attention.cpp."""

    _fields_ = [(name, ctypes.c_int64) for name in ("B", "H", "T", "E", "threads")]


def _sizes(q_BHTE: Tensor) -> Any:
    return ctypes.byref(_Sizes(*q_BHTE.shape, torch.get_num_threads()))


class _View(ctypes.Structure):
    """`View` in tiled_attention.cpp."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("batch", "head", "row")),
    ]


def _view(x_BHTE: Tensor) -> Any:
    return ctypes.byref(_View(x_BHTE.data_ptr(), *x_BHTE.stride()[:3]))


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
