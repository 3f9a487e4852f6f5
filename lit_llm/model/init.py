"""Initial weights: a function of (seed, parameter name), whatever the machine or the sharding.

Every parameter has a random stream of its own, so adding a layer or splitting the model over
devices does not change what the other parameters start from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

STD = 0.02  # GPT-2's (Radford et al., 2019)
RESIDUAL = ("o_proj.weight", "down_proj.weight")  # what is added to the residual stream


@torch.no_grad()
def init_weights(
    model: nn.Module,
    seed: int,
    n_layer: int,
    copy: Callable[[Tensor, Tensor], object] = Tensor.copy_,
) -> None:
    """Fill every parameter in place.

    Matrices are normal with standard deviation 0.02; those that write to the residual stream are
    divided by sqrt(2 * n_layer), so that its variance does not grow with depth (GPT-2). Biases of
    projections are 0; other vectors keep what their module gave them.

    Args:
        model: the network
        seed: another one, other weights
        n_layer: depth of the network
        copy: puts a whole value into a parameter, which may be sharded: (parameter, value)
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            std = STD / (2 * n_layer) ** 0.5 if name.endswith(RESIDUAL) else STD
            copy(parameter, initial_value(name, parameter.shape, seed, std))
        elif name.endswith("_proj.bias"):
            copy(parameter, torch.zeros(parameter.shape))  # nn.Linear would draw it


class SkipInit(TorchFunctionMode):
    """Leaves parameters as allocated, while modules are built whose weights come from elsewhere.

    Drawing values costs most of the time of building a model; on the meta device, where there are
    none, it imports torch._dynamo all the same: a second and 140 MB.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def initial_value(name: str, shape: torch.Size, seed: int, std: float) -> Tensor:
    """Draw one parameter, full-size and in float32 on the CPU."""
    value = torch.empty(shape, dtype=torch.float32, device="cpu")  # whatever the defaults are now
    return value.normal_(std=std, generator=stream(name, seed))


def stream(name: str, seed: int) -> torch.Generator:
    """The random stream of one parameter, on the CPU."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
