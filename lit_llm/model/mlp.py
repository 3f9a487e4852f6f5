"""The position-wise part of a block.

To try another one, write a module whose `__init__` takes (config, layer) and name it in YAML:

    model:
      gpt:
        mlp: my_project.SquaredReLU
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_llm.model import elementwise

if TYPE_CHECKING:
    from lit_llm.model.config import GPTConfig


class SwiGLU(nn.Module):
    """Gated MLP: down(silu(gate(x)) * up(x)) (Shazeer, 2020, arXiv:2002.05202)."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.ff_dim, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.ff_dim, bias=False)
        self.down_proj = nn.Linear(config.ff_dim, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(_Gated.apply(self.gate_proj(x_BTD), self.up_proj(x_BTD)))


class _Gated(torch.autograd.Function):
    """silu(gate) * up; silu(gate) is computed again in the backward pass and not kept."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        if elementwise.can_compute(gate):
            return elementwise.gate(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        if elementwise.can_compute(gate):
            return elementwise.gate_backward(gradient, gate, up)
        of_up = F.silu(gate).mul_(gradient)
        return torch.ops.aten.silu_backward(gradient * up, gate), of_up
