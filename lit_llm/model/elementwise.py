"""What a block computes between its matrix products, on a CPU, by `elementwise.cpp`.

Norm, rotation and gate each take PyTorch several operators, and each operator a pass over memory;
here it is one pass. `norm.py`, `rope.py` and `mlp.py` say what is computed and call this where
`can_compute` holds. torch.compile fuses operators by itself and is left to do so.
"""

from __future__ import annotations

from ctypes import c_float, c_int64, c_void_p
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.model.native import compiled_library, operator

# None where no compiler makes a library of it.
library = partial(compiled_library, Path(__file__).with_name("elementwise.cpp"))
LEAST = 2**16  # numbers; fewer cost less than the call
ROWS = 64  # as in elementwise.cpp
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
NORMS = {  # by the types of input, weight and output
    (torch.float32, torch.float32, torch.float32): "float32",
    (torch.float32, torch.float32, torch.bfloat16): "mixed",
    (torch.bfloat16, torch.bfloat16, torch.bfloat16): "bfloat16",
}


def can_compute(x: Tensor) -> bool:
    """Whether a tensor is on a CPU, large enough, and of a type that the library knows."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype in NAMES
        and x.numel() >= LEAST
        and not hasattr(x, "placements")  # no DTensor
        and library() is not None
    )


def _norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """RMSNorm over the last dimension.

    Returns:
        The result, of a dtype for which `NORMS` has a name, and float32 1 / root mean square.
    """
    x, weight = x.contiguous(), weight.contiguous()
    out, inverse = _empty_norm(x, weight, eps, dtype)
    name = "norm_" + NORMS[x.dtype, weight.dtype, dtype]
    _call(name, x, weight, *_rows(x), c_float(eps), out, inverse)
    return out, inverse


def _norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight."""
    gradient, x, weight = gradient.contiguous(), x.contiguous(), weight.contiguous()
    N, D = x.numel() // x.size(-1), x.size(-1)
    sums = torch.empty(-(-N // ROWS), D, dtype=torch.float32)  # whatever the default is
    of_x = torch.empty_like(x)
    name = "norm_backward_" + NORMS[x.dtype, weight.dtype, gradient.dtype]
    _call(name, gradient, x, weight, inverse, *_rows(x), of_x, sums)
    return of_x, sums.sum(0).type_as(weight)


def _turn(x_BHTE: Tensor, cos_B1TE: Tensor, sin_B1TE: Tensor, back: bool) -> Tensor:
    """Rotate the halves of each head; the result is contiguous."""
    x_BHTE = x_BHTE if x_BHTE.stride(-1) == 1 else x_BHTE.contiguous()
    cos_B1TE, sin_B1TE = cos_B1TE.contiguous(), sin_B1TE.contiguous()
    out_BHTE = _empty_turned(x_BHTE)
    of_batch = 0 if cos_B1TE.size(0) == 1 else cos_B1TE.stride(0)
    _call(
        "turn_" + NAMES[x_BHTE.dtype],
        x_BHTE,
        (c_int64 * 4)(*x_BHTE.stride()),
        cos_B1TE,
        sin_B1TE,
        c_int64(of_batch),
        (c_int64 * 4)(*x_BHTE.shape),
        c_float(-1.0 if back else 1.0),
        out_BHTE,
    )
    return out_BHTE


def _gate(of: Tensor, up: Tensor) -> Tensor:
    """The product of silu(of) and up."""
    of, up = of.contiguous(), up.contiguous()
    out = torch.empty_like(of)
    _call("gate_" + NAMES[of.dtype], of, up, c_int64(of.numel()), out)
    return out


def _gate_backward(gradient: Tensor, of: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `of` and `up`."""
    gradient, of, up = gradient.contiguous(), of.contiguous(), up.contiguous()
    of_gate, of_up = torch.empty_like(of), torch.empty_like(up)
    name = "gate_backward_" + NAMES[of.dtype]
    _call(name, gradient, of, up, c_int64(of.numel()), of_gate, of_up)
    return of_gate, of_up


def _empty_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    contiguous = torch.contiguous_format
    out = torch.empty_like(x, dtype=dtype, memory_format=contiguous)
    return out, x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _empty_turned(x_BHTE: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x_BHTE, memory_format=torch.contiguous_format)


norm = operator(
    "norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> (Tensor, Tensor)",
    _norm,
    _empty_norm,
)
norm_backward = operator(
    "norm_backward(Tensor gradient, Tensor x, Tensor weight, Tensor inverse) -> (Tensor, Tensor)",
    _norm_backward,
    lambda gradient, x, weight, inverse: (torch.empty_like(x), torch.empty_like(weight)),
)
turn = operator("turn(Tensor x, Tensor cos, Tensor sin, bool back) -> Tensor", _turn, _empty_turned)
gate = operator("gate(Tensor of, Tensor up) -> Tensor", _gate, lambda of, up: torch.empty_like(of))
gate_backward = operator(
    "gate_backward(Tensor gradient, Tensor of, Tensor up) -> (Tensor, Tensor)",
    _gate_backward,
    lambda gradient, of, up: (torch.empty_like(of), torch.empty_like(up)),
)


def _rows(x: Tensor) -> tuple[Any, Any]:
    D = x.size(-1)
    return c_int64(x.numel() // D), c_int64(D)


def _call(name: str, *arguments: Any) -> None:
    call = getattr(library(), name)
    call.restype = None
    addresses = (c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments)
    call(*addresses, c_int64(torch.get_num_threads()))
