"""Linear layers that only generate: their weights are read as fast as memory gives them.

`nn.Linear` multiplies one row of input by its weights at a third (bfloat16) or half (float32) of
what a CPU's memory delivers, and sixteen rows at half or a third of what its cores can compute.
Here, one row is a sum of products that `torch.compile` turns into a loop over the weights, in
float32, and several rows meet a copy of the weights in the order in which oneDNN reads them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FastLinear(nn.Module):
    """What `linear` computes, faster.

    Args:
        linear: without bias; its weight is shared, not copied
        packed: keep a second copy of the weight, packed for several rows; on a CPU alone
    """

    def __init__(self, linear: nn.Linear, *, packed: bool) -> None:
        super().__init__()
        self.weight = linear.weight
        self.packed = pack(linear.weight) if packed else None

    def forward(self, x: Tensor) -> Tensor:
        # eager, the products of one row would be written to memory, all of them
        if torch.compiler.is_compiling() and _is_one_row(x):
            return self.one_row(x)
        if self.packed is None:
            return F.linear(x, self.weight.type_as(x))
        return multiply(x, self.packed)

    def one_row(self, x: Tensor) -> Tensor:
        """The sum of products; only for code that is compiled."""
        out = (self.weight.float() * x.float().reshape(-1)).sum(-1)
        return out.type_as(x).reshape(*x.shape[:-1], -1)


class Int8Linear(nn.Module):
    """A linear layer whose weights are 8-bit integers, with one scale for each output channel.

    A weight is off by at most half of 1/127 of its row's largest one. Several rows meet a packed
    copy of these rounded weights in the model's dtype, so that a prompt's answer is the same alone
    and in a batch.

    Args:
        linear: without bias
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantize(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.dtype = linear.weight.dtype
        self.packed = pack(self.rounded()) if weight.device.type == "cpu" else None

    def rounded(self) -> Tensor:
        """The weights that it computes with."""
        return (self.weight * self.scale[:, None]).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and _is_one_row(x):
            return self.one_row(x)
        return F.linear(x, self.rounded()) if self.packed is None else multiply(x, self.packed)

    def one_row(self, x: Tensor) -> Tensor:
        """The sum of products; only for code that is compiled."""
        out = (self.weight.float() * x.float().reshape(-1)).sum(-1) * self.scale
        return out.type_as(x).reshape(*x.shape[:-1], -1)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to int8, row by row.

    Returns:
        int8 of the weight's shape, and the float32 scale of each row.
    """
    weight = weight.float()
    scale = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def pack(weight: Tensor) -> Tensor | None:
    """A copy of a weight (out, in) as oneDNN likes to read it; None where there is no oneDNN.

    TorchInductor packs the weights of frozen models with the same operator.
    """
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return None
    operators: Any = torch.ops.mkldnn
    if weight.dtype == torch.bfloat16 and not operators._is_mkldnn_bf16_supported():
        return None
    with torch.no_grad():
        packed: Tensor = operators._reorder_linear_weight(weight.detach().contiguous(), ROWS)
    return packed


ROWS = 16  # that the packed order is chosen for; it serves every other number too


def multiply(x: Tensor, packed: Tensor) -> Tensor:
    """Rows (..., in) times a packed weight: (..., out), of the dtype that `F.linear` gives.

    Autocast does not know this operator, and oneDNN takes no two dtypes: under bf16-mixed the rows
    come in bfloat16 and the weight is float32. They are multiplied in the weight's dtype.
    """
    operators: Any = torch.ops.mkldnn
    out: Tensor = operators._linear_pointwise(x.to(packed.dtype), packed, None, "none", [], "")
    autocast = torch.is_autocast_enabled("cpu")
    return out.to(torch.get_autocast_dtype("cpu") if autocast else x.dtype)


def _is_one_row(x: Tensor) -> bool:
    return x.numel() == x.size(-1)
