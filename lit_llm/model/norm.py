"""RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_llm.model import elementwise


class RMSNorm(nn.Module):
    """Divide each vector by its root mean square, then scale each channel.

    Computed in float32, cast back, then scaled: the order of Hugging Face's Llama, which decides
    the last bits in bfloat16.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin without scaling."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        # Some devices know no autocast, and asking for it there is an error: meta.
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # Once, and not by each of the projections that read it: three times for q, k and v.
            return _Norm.apply(x, self.weight, self.eps, torch.get_autocast_dtype(kind))
        return _Norm.apply(
            x, self.weight, self.eps, torch.promote_types(x.dtype, self.weight.dtype)
        )


class _Norm(torch.autograd.Function):
    """Keeps x alone for the backward pass, where autograd would keep the normed x too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        known = (x.dtype, weight.dtype, dtype) in elementwise.NORMS
        if known and elementwise.can_compute(x):
            scaled, inverse = elementwise.norm(x, weight, eps, dtype)
        else:
            wide = x.float()
            inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
            scaled = ((wide * inverse).type_as(x) * weight).to(dtype)
        ctx.save_for_backward(x, weight, inverse)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        known = (x.dtype, weight.dtype, gradient.dtype) in elementwise.NORMS
        if known and elementwise.can_compute(x):
            return *elementwise.norm_backward(gradient, x, weight, inverse), None, None
        normed, gradient, scale = x.float() * inverse, gradient.float(), weight.float()
        product = gradient * normed
        # Along x itself its length has no influence: that part of the gradient is taken away.
        # Not by `@`, which autocast would compute in bfloat16, here too.
        along = (product * scale).sum(-1, keepdim=True) / x.size(-1)
        of_x = (gradient * scale).addcmul_(normed, along, value=-1).mul_(inverse)
        of_weight = product.flatten(0, -2).sum(0) if product.dim() > 1 else product
        return of_x.type_as(x), of_weight.type_as(weight), None, None
