"""Leaving a step of the optimizer out, decided on the device.

A condition that the host reads costs a wait in every step, for something that happens in one of
a million. Fused optimizers know better: a tensor `found_inf`, made for float16's scaled gradients,
turns their kernel into nothing where it is 1. The host launches it and never looks.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import SGD, Optimizer


def skips_on_device(optimizer: Optimizer) -> bool:
    """Whether a step of this optimizer can be left out without the host knowing.

    PyTorch's fused optimizers can, and any that says so with an attribute `skips_on_device = True`
    and reads `self.found_inf` in its step, as `lit_llm.optim.Muon` does. Not fused SGD: its first
    step would keep memory that nobody has written as momentum.
    """
    if (own := getattr(optimizer, "skips_on_device", None)) is not None:
        return bool(own)
    fused = all(group.get("fused") for group in optimizer.param_groups)
    able = getattr(optimizer, "_step_supports_amp_scaling", False)
    return fused and able and not isinstance(optimizer, SGD)


def skip_where(optimizer: Any, skip: Tensor | None) -> None:
    """Let the optimizer's next step change nothing if `skip` is true.

    Parameters, moments, step counts and weight decay stay, bit for bit; state that the step would
    create is that of an optimizer before its first step. An optimizer that cannot do that on the
    device loses its gradients instead, and the host has to wait for `skip`.

    Args:
        optimizer: has its gradients, and is about to make its step
        skip: bool scalar on the device of the parameters; None: nobody wants that, and what an
            earlier step was told holds no more
    """
    optimizer = getattr(optimizer, "_optimizer", optimizer)  # out of Lightning's wrapper
    if skips_on_device(optimizer):
        optimizer.found_inf = None if skip is None else skip.float()
    elif skip is not None and bool(skip):
        optimizer.zero_grad(set_to_none=True)
