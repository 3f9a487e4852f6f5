"""Causal attention in bfloat16 on a CPU without AMX, for training and for reading a prompt.

There PyTorch's fused attention takes its 16 bits apart and multiplies in float32. Written as
matrix products of bfloat16, a block of queries at a time and only up to their last key, it takes
0.6 times as long: forward and backward of 12 heads at 1024 tokens 73 instead of 122 ms, of 48 heads
at 256 tokens 31 instead of 51 ms (one thread of a Zen 4), forward alone at 1024 tokens 12.8 instead
of 16.6 ms (two threads). In float32 it would gain nothing.

The price of training is memory: the probabilities are kept for the backward pass, which grow with
the square of the row. 12 heads of 64 channels keep 18 MiB at 1024 tokens where PyTorch's attention
keeps 6, and 60 instead of 12 at 2048: so longer rows are left to PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES = 128  # of a block; 64 and 256 are slower at 256 and at 1024 tokens
LONGEST = 1024  # tokens of a row, for the sake of memory

# Asked once and not in each forward pass, where the question would end torch.compile's graph.
CPU_IS_SUITED = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def is_faster(q_BHTE: Tensor, *, reads: bool = False) -> bool:
    """Whether these queries are of the kind, and on a CPU, for which it was measured.

    Args:
        q_BHTE: queries
        reads: they are a prompt's, which is read into a cache
    """
    return (
        q_BHTE.dtype == torch.bfloat16
        and q_BHTE.device.type == "cpu"
        and q_BHTE.size(-2) <= LONGEST
        and (torch.is_grad_enabled() or (reads and q_BHTE.size(-2) >= QUERIES))
        and CPU_IS_SUITED
    )


def causal_attention(q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
    """What `F.scaled_dot_product_attention(q, k, v, is_causal=True)` computes.

    Probabilities are rounded to the inputs' dtype, sums are in float32.
    """
    return _CausalAttention.apply(q_BHTE, k_BHTE, v_BHTE)


def one_is_faster(q_BHTE: Tensor) -> bool:
    """Whether `attend_one` is: of 16 rows and 152 slots 0.45 instead of 2.2 ms in bfloat16."""
    return (
        q_BHTE.size(-2) == 1
        and q_BHTE.dtype == torch.bfloat16
        and q_BHTE.device.type == "cpu"
        and not torch.is_grad_enabled()
        and CPU_IS_SUITED
    )


def attend_one(q_BH1E: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask_B11S: Tensor) -> Tensor:
    """What SDPA computes of one query a head, whose mask is of the row: two matrix products."""
    q_BKGE = (q_BH1E * q_BH1E.size(-1) ** -0.5).reshape(*k_BKSE.shape[:2], -1, k_BKSE.size(-1))
    scores_BKGS = (q_BKGE @ k_BKSE.mT).float().masked_fill(~mask_B11S, float("-inf"))
    return (scores_BKGS.softmax(dim=-1).type_as(v_BKSE) @ v_BKSE).reshape(q_BH1E.shape)


class _CausalAttention(torch.autograd.Function):
    """Letters as in the model; N stands for all heads of all sequences."""

    @staticmethod
    def forward(ctx: Any, q_BHTE: Tensor, k_BHTE: Tensor, v_BHTE: Tensor) -> Tensor:
        ctx.scale = q_BHTE.size(-1) ** -0.5
        keeps = any(ctx.needs_input_grad)  # a prompt that is read keeps nothing
        q_NTE, k_NTE, v_NTE = (x.flatten(0, 1) for x in (q_BHTE, k_BHTE, v_BHTE))
        B, H, T, E = q_BHTE.shape
        # In the order of the residual stream, which the heads' outputs join next.
        out_BTHE = q_BHTE.new_empty(B, T, H, E)
        future_QQ = torch.ones(QUERIES, QUERIES, dtype=torch.bool).triu(1)
        queries, probabilities = [], []
        for start, stop in _blocks(T):
            q_NQE, size = q_NTE[:, start:stop] * ctx.scale, stop - start
            # `.mT` of a part that is not contiguous would be copied number by number.
            scores_NQS = q_NQE @ k_NTE[:, :stop].contiguous().mT
            scores_NQS[:, :, start:].masked_fill_(future_QQ[:size, :size], float("-inf"))
            p_NQS = scores_NQS.softmax(dim=-1)
            out_NQE = p_NQS @ v_NTE[:, :stop]
            out_BTHE[:, start:stop] = out_NQE.view(B, H, size, E).transpose(1, 2)
            if keeps:
                queries.append(q_NQE)
                probabilities.append(p_NQS)
        ctx.save_for_backward(k_NTE, v_NTE, *queries, *probabilities)
        return out_BTHE.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BHTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k_NTE, v_NTE, *rest = ctx.saved_tensors
        queries, probabilities = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        gradient_NTE = gradient_BHTE.flatten(0, 1)
        dq_NTE = torch.empty_like(k_NTE)
        # Many blocks add to the same keys: in float32, lest each addition rounds.
        dk_NTE = torch.zeros_like(k_NTE, dtype=torch.float32)
        dv_NTE = torch.zeros_like(v_NTE, dtype=torch.float32)
        blocks = _blocks(k_NTE.size(1))
        for (start, stop), q_NQE, p_NQS in zip(blocks, queries, probabilities, strict=True):
            gradient_NQE = gradient_NTE[:, start:stop].contiguous()
            dv_NTE[:, :stop] += p_NQS.mT @ gradient_NQE
            dp_NQS = gradient_NQE @ v_NTE[:, :stop].contiguous().mT
            dscores_NQS = torch._softmax_backward_data(dp_NQS, p_NQS, -1, p_NQS.dtype)
            dq_NTE[:, start:stop] = dscores_NQS @ k_NTE[:, :stop]
            dk_NTE[:, :stop] += dscores_NQS.mT @ q_NQE
        gradients = (dq_NTE.mul_(ctx.scale), dk_NTE.type_as(k_NTE), dv_NTE.type_as(v_NTE))
        return tuple(gradient.view(gradient_BHTE.shape) for gradient in gradients)  # type: ignore[return-value]


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERIES, length)) for start in range(0, length, QUERIES)]
