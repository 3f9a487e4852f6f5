"""Muon for matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a
matrix by the nearest matrix with all singular values one: every direction moves equally far.
`torch.optim.Muon` takes matrices only and Lightning's automatic optimization takes one
optimizer, hence one class with both rules, chosen by the group's `kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

# Coefficients of the quintic iteration that Jordan et al. tuned for speed, not for convergence:
# singular values end between about 0.7 and 1.2, which trains as well as exactly 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
BATCH_ELEMENTS = 2**20  # of matrices that are updated together


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

    Small matrices of one shape are updated together. A matrix that is sharded over devices is
    gathered for its update, which every device computes and takes its own part of: the exchange of
    one more all-gather a step, and no other result.

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
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            rule = self._muon if group["kind"] == "matrix" else self._adam
            for parameters in _alike(learning):
                rule(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momenta = [self._momentum_of(parameter) for parameter in parameters]
        changing = [_local(tensor) for tensor in (*parameters, *momenta)]
        before = [] if self.found_inf is None else [tensor.clone() for tensor in changing]

        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        directions = _orthogonal(list(updates), group["ns_steps"])
        # An orthogonal (m, n) matrix has RMS 1/sqrt(max(m, n)); AdamW's updates have about 0.2.
        scale = 0.2 * max(parameters[0].shape) ** 0.5
        torch._foreach_sub_(parameters, directions, alpha=group["lr"] * scale)

        for tensor, old in zip(changing, before, strict=self.found_inf is not None):
            torch.where(_local(self.found_inf) == 1, old, tensor, out=tensor)

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self._moments_of(parameter) for parameter in parameters]
        beta_1, beta_2 = group["betas"]
        adamw(
            parameters,
            [cast(Tensor, parameter.grad) for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=self.found_inf,
            amsgrad=False,
            maximize=False,
            beta1=beta_1,
            beta2=beta_2,
            **{name: group[name] for name in ("lr", "weight_decay", "eps")},
        )

    def _moments_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        # On the device, which alone knows whether a step counts.
        state["step"] = state["step"].to(parameter.device)
        return state


def _alike(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one shape, up to a transposition, and of one kind of tensor: a batch.

    On small matrices an operation costs more than its arithmetic, so that one for all pays; large
    ones gain nothing by company and would take memory for it.
    """
    batches: dict[object, list[Tensor]] = {}
    for parameter in parameters:
        mesh = getattr(parameter, "device_mesh", None)
        key = (tuple(sorted(parameter.shape)), parameter.dtype, parameter.device, mesh)
        batches.setdefault(key, []).append(parameter)
    for batch in batches.values():
        n = max(1, BATCH_ELEMENTS // max(1, batch[0].numel()))
        yield from (batch[i : i + n] for i in range(0, len(batch), n))


def _local(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds, sharing its memory."""
    return tensor.to_local() if hasattr(tensor, "placements") else tensor  # see _orthogonal


def _orthogonal(updates: list[Any], steps: int) -> list[Any]:
    """`orthogonalize`, for matrices of one shape, also those of which each device holds a part."""
    if not hasattr(updates[0], "placements"):  # no DTensor, whose import takes a second
        lying = [update.size(0) <= update.size(1) for update in updates]
        turned = [u if lies else u.T for u, lies in zip(updates, lying, strict=True)]
        results = orthogonalize(torch.stack(turned), steps)
        return [u if lies else u.T for u, lies in zip(results, lying, strict=True)]
    from torch.distributed.tensor import DTensor, Replicate

    mesh = updates[0].device_mesh
    wholes = _orthogonal([update.full_tensor() for update in updates], steps)
    everywhere = [Replicate()] * mesh.ndim
    shared = [DTensor.from_local(whole, mesh, everywhere, run_check=False) for whole in wholes]
    return [
        whole.redistribute(placements=update.placements)
        for whole, update in zip(shared, updates, strict=True)
    ]


def orthogonalize(matrices: Tensor, steps: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Push the singular values of matrices towards 1 by Newton-Schulz iteration.

    Args:
        matrices: (m, n), or any number of them: (N, m, n)
        steps: iterations
        dtype: arithmetic; None takes bfloat16 where matmuls in it are fast, else float32

    Returns:
        The shape and dtype of `matrices`.
    """
    x = matrices.to(dtype or _fast_dtype(matrices.device)).reshape(-1, *matrices.shape[-2:])
    wide = x.size(1) <= x.size(2)
    if not wide:
        x = x.mT
    # The iteration converges for singular values up to 1.
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).reshape(matrices.shape).to(matrices.dtype)


def _fast_dtype(device: torch.device) -> torch.dtype:
    """Without instructions for bfloat16, it is 1.4 to 33 times slower than float32 on a CPU."""
    if device.type != "cpu":
        return torch.bfloat16
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
