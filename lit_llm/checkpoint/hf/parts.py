"""How does a model of 16 bits compute in float32 without a second, wider copy of its weights?

Each layer widens what it needs while it runs: a comparison then takes the memory of the weights
and of one layer's product, for ours and for those of transformers alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VALUES = 2**24
"""of a matrix that are widened at a time. Pieces of 64 MB are given back to the system when they
are freed; of pieces below 32 MB the allocator kept 200 MB."""


def in_float32(model: nn.Module) -> None:
    """Make a model compute in float32, whatever its weights are; it is of no other use then."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = _linear(module)  # type: ignore[method-assign,assignment]
        elif isinstance(module, nn.Embedding):
            module.forward = _embedding(module)  # type: ignore[method-assign,assignment]
        else:
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.detach().float()))


def _linear(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        weight = linear.weight.detach()
        n_rows = max(VALUES // weight.size(1), 1)
        parts = [F.linear(x.float(), rows.float()) for rows in weight.split(n_rows)]
        product = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        return product if linear.bias is None else product + linear.bias.detach().float()

    return forward


def _embedding(embedding: nn.Embedding) -> Callable[[Tensor], Tensor]:
    return lambda ids: F.embedding(ids, embedding.weight.detach()).float()
