"""Tensors with shape, type and device, but without memory, on which PyTorch runs as it always does.

A ghost says that it lies on a device and holds a tensor of PyTorch's meta device, which has a
storage of a certain size and no bytes in it. Autograd, autocast, fused attention and
checkpointing see the device; what reaches a kernel is run on the meta tensors, so views share
storages and results have the sizes that they would have. PyTorch's own FakeTensorMode does the
same, and more, and makes a plan a second slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_FILLS = {_aten.normal_.default, _aten.uniform_.default, _aten.fill_.Scalar, _aten.zero_.default}


class Ghost(Tensor):
    """A tensor on `device` that is all shape; `meta` has its storage."""

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor, device: torch.device) -> Ghost:
        ghost = Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            layout=meta.layout,
            device=device,
            requires_grad=meta.requires_grad,
        )
        ghost.meta = meta
        return ghost

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[override]
        raise RuntimeError(f"{func} of a ghost outside of Ghosts")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Ghost({tuple(self.shape)}, {self.dtype}, {self.device})"


class Ghosts(TorchDispatchMode):
    """While it is entered, every tensor that is made is a ghost.

    Code that looks at a number finds none. It is told 1, for the first step of an optimizer, say,
    and a question is answered by no: rows hold several documents.

    Args:
        device: where ghosts say they are
        on_result: called with each tensor that an operation gives, the operation and its arguments
    """

    def __init__(self, device: str, on_result: Callable[[Ghost, Any, Sequence[Any]], None]) -> None:
        super().__init__()
        self._device = torch.device(device)
        self._on_result = on_result

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        if func is _aten._local_scalar_dense.default:
            return False if args[0].dtype == torch.bool else 1
        if func in _FILLS:
            return args[0]  # there is nothing to be filled
        known: dict[int, Ghost] = {}
        kwargs = dict(kwargs or {})
        if "device" in kwargs or _makes(func):
            kwargs["device"] = torch.device("meta")
        result = func(
            *(_lower(arg, known) for arg in args),
            **{name: _lower(value, known) for name, value in kwargs.items()},
        )
        return self._raise(result, known, func, args)

    def _raise(self, result: Any, known: dict[int, Ghost], func: Any, args: Sequence[Any]) -> Any:
        if isinstance(result, Tensor):
            ghost = known.get(id(result))  # an operation in place gives its argument
            if ghost is None:
                ghost = Ghost(result, self._device)
                self._on_result(ghost, func, args)
            return ghost
        if isinstance(result, list | tuple):
            return type(result)(self._raise(item, known, func, args) for item in result)
        return result


def _lower(value: Any, known: dict[int, Ghost]) -> Any:
    """The meta tensor of a ghost; a tensor with numbers in it becomes one."""
    if isinstance(value, Ghost):
        known[id(value.meta)] = value
        return value.meta
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, list | tuple):
        return type(value)(_lower(item, known) for item in value)
    return value


@cache
def _makes(func: Any) -> bool:
    """Whether an operation makes a tensor from none, such as `torch.empty`."""
    arguments = func._schema.arguments
    takes_tensors = any("Tensor" in str(argument.type) for argument in arguments)
    return not takes_tensors and any(argument.name == "device" for argument in arguments)
