"""Muon for matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a
matrix by the nearest matrix with all singular values one: every direction moves equally far.
`torch.optim.Muon` takes matrices only and Lightning's automatic optimization takes one
optimizer, hence one class with both rules, chosen by the group's `kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

# Coefficients of the quintic iteration that Jordan et al. tuned for speed, not for convergence:
# singular values end between about 0.7 and 1.2, which trains as well as exactly 1.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Muon for groups of kind `matrix`, AdamW (Loshchilov and Hutter, 2017) for the others.

    Args:
        params: groups of `lit_llm.optim.groups.parameter_groups`
        lr: learning rate of the AdamW groups and, since Muon's update is scaled to AdamW's
            root mean square (Liu et al., 2025, arXiv:2502.16982), of the matrices too
        weight_decay: decoupled, as in AdamW
        betas: decay of AdamW's two moments
        eps: added to AdamW's denominator
        momentum: decay of Muon's momentum, used Nesterov's way
        ns_steps: Newton-Schulz iterations

    A matrix that is sharded over devices is gathered for its update, which every device computes
    and takes its own part of: the exchange of one more all-gather a step, and no other result.

    With an attribute `found_inf`, a float scalar on the device, a step changes nothing where that
    is 1: neither parameters nor state. PyTorch's fused optimizers have the same.
    """

    skips_on_device = True
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 3e-3,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
        ns_steps: int = 5,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr={lr} is negative: give 0 or more")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "betas": tuple(betas),
            "eps": eps,
            "momentum": momentum,
            "ns_steps": ns_steps,
            "kind": "vector",
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        skip = None if self.found_inf is None else _local(self.found_inf) == 1
        for group in self.param_groups:
            rule = self._muon if group["kind"] == "matrix" else self._adam
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state_of(parameter, group["kind"])
                # Of a DTensor the part that is here: each operation on the whole costs the host
                # as much as ten.
                changing = [] if skip is None else [_local(t) for t in (parameter, *state.values())]
                before = [tensor.clone() for tensor in changing]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                rule(parameter, parameter.grad, state, group)
                for tensor, old in zip(changing, before, strict=True):
                    torch.where(cast(Tensor, skip), old, tensor, out=tensor)
        return loss

    def _state_of(self, parameter: Tensor, kind: str) -> dict[str, Tensor]:
        state = self.state[parameter]
        if kind == "matrix":
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            return state
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        # On the device, which alone knows whether a step counts.
        state["step"] = state["step"].to(parameter.device)
        return state

    def _muon(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"])
        # An orthogonal (m, n) matrix has RMS 1/sqrt(max(m, n)); AdamW's updates have about 0.2.
        scale = 0.2 * max(parameter.shape) ** 0.5
        parameter.sub_(_orthogonal(update, group["ns_steps"]), alpha=group["lr"] * scale)

    def _adam(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        beta_1, beta_2 = group["betas"]
        step = state["step"].add_(1)
        mean = state["exp_avg"].lerp_(gradient, 1 - beta_1)
        square = state["exp_avg_sq"].mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        # In float32: a scalar on a GPU takes the dtype of its tensor, which may be bfloat16.
        denominator = (square.float() / (1 - beta_2**step)).sqrt_().add_(group["eps"])
        change = mean.float() / denominator.mul_(1 - beta_1**step)
        parameter.sub_(change, alpha=group["lr"])


def _local(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds, sharing its memory."""
    return tensor.to_local() if hasattr(tensor, "placements") else tensor  # see _orthogonal


def _orthogonal(update: Any, steps: int) -> Tensor:
    """`orthogonalize`, for a matrix of which each device holds a part too."""
    if not hasattr(update, "placements"):  # no DTensor, whose import takes a second
        return orthogonalize(update, steps)
    from torch.distributed.tensor import DTensor, Replicate

    mesh = update.device_mesh
    whole = orthogonalize(update.full_tensor(), steps)
    whole = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return whole.redistribute(placements=update.placements)


def orthogonalize(matrix: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Push the singular values of a matrix towards 1 by Newton-Schulz iteration.

    Args:
        matrix: (m, n)
        steps: iterations
        dtype: arithmetic; None takes bfloat16 where matmuls in it are fast, else float32

    Returns:
        (m, n), the dtype of `matrix`.
    """
    x = matrix.to(dtype or _fast_dtype(matrix.device))
    wide = x.size(0) <= x.size(1)
    if not wide:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)  # the iteration converges for singular values up to 1
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.T).to(matrix.dtype)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """Without AMX, bfloat16 on a CPU is 1.4 to 33 times slower than float32."""
    if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        return torch.float32
    return torch.bfloat16
