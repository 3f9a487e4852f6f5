"""Cross-entropy on a CPU by `cross_entropy.cpp`: each logit is read three times and written once.

PyTorch's operators, in pieces that stay in the cache, make a dozen passes. For 1024 rows of 50,304
logits in bfloat16 forward and backward take 37 instead of 81 ms (two threads).
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_llm.data.batch import IGNORE
from lit_llm.model.native import compiled_library, operator

# None where no compiler makes a library of it.
library = partial(compiled_library, Path(__file__).with_name("cross_entropy.cpp"))
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
LEAST = 2**20  # logits; fewer take PyTorch less time than a compiler takes


def can_compute(logits_NV: Tensor) -> bool:
    """Whether these logits are for the library."""
    return (
        logits_NV.device.type == "cpu"
        and logits_NV.dtype in NAMES
        and logits_NV.numel() >= LEAST
        and logits_NV.is_contiguous()
        and library() is not None
    )


class NativeCrossEntropy(torch.autograd.Function):
    """The logits are used up: their gradient is written over them, in the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, vocab_size: int) -> Tensor:
        counts_N = targets_N != IGNORE
        # IGNORE alone becomes an id: any other that does not exist is an error of gather.
        target_N = targets_N.where(counts_N, 0)
        of_target_N = logits_NV[:, :vocab_size].gather(-1, target_N[:, None]).squeeze(-1).float()
        lse_N = _log_sums(logits_NV, vocab_size)
        ctx.vocab_size = vocab_size
        ctx.save_for_backward(logits_NV, lse_N, target_N, counts_N)
        return (lse_N - of_target_N).where(counts_N, 0.0).sum()  # not times 0: NaN stays NaN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits_NV, lse_N, target_N, counts_N = ctx.saved_tensors
        _to_gradient(logits_NV, ctx.vocab_size, lse_N, target_N, counts_N, float(gradient))
        return logits_NV, None, None


def _log_sums_on_cpu(logits_NV: Tensor, vocab_size: int) -> Tensor:
    """The logarithm of each row's sum of exponentials, float32."""
    lse_N = torch.empty(len(logits_NV), dtype=torch.float32)  # whatever the default is
    _call("log_sums", logits_NV, vocab_size, _address(lse_N))
    return lse_N


def _to_gradient_on_cpu(
    logits_NV: Tensor,
    vocab_size: int,
    lse_N: Tensor,
    target_N: Tensor,
    counts_N: Tensor,
    factor: float,
) -> None:
    """Write `factor` times the gradient of the summed loss over the logits."""
    rows = [_address(x_N) for x_N in (lse_N, target_N, counts_N)]
    _call("to_gradient", logits_NV, vocab_size, *rows, c_float(factor))


_log_sums = operator(
    "log_sums(Tensor logits, int vocab_size) -> Tensor",
    _log_sums_on_cpu,
    lambda logits_NV, vocab_size: logits_NV.new_empty(len(logits_NV), dtype=torch.float32),
)
_to_gradient = operator(
    "to_gradient(Tensor(a!) logits, int vocab_size, Tensor lse, Tensor target, Tensor counts,"
    " float factor) -> ()",
    _to_gradient_on_cpu,
    lambda *arguments: None,
)


def _call(name: str, logits_NV: Tensor, vocab_size: int, *arguments: Any) -> None:
    N, stride = logits_NV.shape
    call = getattr(library(), f"{name}_{NAMES[logits_NV.dtype]}")
    call.restype = None
    sizes = (c_int64(N), c_int64(vocab_size), c_int64(stride))
    call(_address(logits_NV), *sizes, *arguments, c_int64(torch.get_num_threads()))


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return c_void_p(tensor.data_ptr())
