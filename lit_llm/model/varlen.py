"""Attention among documents that lie end to end, without a mask: on NVIDIA GPUs, in 16 bits.

A dense mask forbids PyTorch's flash attention and makes it look at every pair of a row. Here the
kernel is told where documents begin and does no work across a border. It has no dropout, no
float32 and no CPU version; wherever it cannot be used, attention reads the layout's mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[..., Tensor]


class Documents(NamedTuple):
    """Documents of a batch whose rows lie end to end."""

    borders_N: Tensor
    """int32; see `borders`"""

    is_causal: bool
    """each token sees itself and the tokens before it, else its whole document"""

    kernel: Kernel
    """PyTorch's; found once and handed on, for compiled code must not look for it"""


LEAST = 64  # borders that are provided for, so that few batches differ in shape


def room_for(documents: int) -> int:
    """Borders to provide for so many documents: a power of two, for blocks compile per shape."""
    return max(LEAST, 1 << (documents - 1).bit_length())


def count_documents(documents_BT: Tensor) -> int:
    """Documents of a batch; on a CPU, for elsewhere this waits for the device."""
    borders = documents_BT[:, 1:] != documents_BT[:, :-1]
    return documents_BT.size(0) + int(borders.sum())


def borders(documents_BT: Tensor, room: int) -> Tensor:
    """Where each document begins if all rows lie end to end, then their whole length, `room` times.

    A document that begins at the end is empty: what is too many in `room` costs nothing. Nothing
    here waits for the device.

    Args:
        documents_BT: equal numbers that lie side by side in a row mark one document
        room: at least the number of documents, else the device stops with an error

    Returns:
        int32 of shape (room + 1,), as `varlen_attn` has it.
    """
    is_first_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    is_first_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    is_first_N = is_first_BT.flatten()
    number_N = is_first_N.cumsum(0) - 1
    torch._assert_async(number_N[-1] < room)
    length = is_first_N.numel()
    place_N = torch.arange(length, device=documents_BT.device)
    target_N = torch.where(is_first_N, number_N, room)  # all others write to the last one
    found = torch.full((room + 1,), length, dtype=torch.int64, device=documents_BT.device)
    found.scatter_(0, target_N, place_N)
    found[-1] = length
    return found.to(torch.int32)


@cache
def kernel(device: torch.device) -> Kernel | None:
    """What attends on a device; None where there is nothing."""
    if device.type != "cuda" or torch.version.cuda is None:
        return None
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    found = find()
    return found if found is not None and agrees(found, device) else None


def agrees(kernel: Kernel, device: torch.device) -> bool:
    """Whether a kernel gives what the mask gives, forward and backward, on a small example.

    Kernels change from one version of PyTorch to the next; one that fails here is not used.
    """
    off = torch.autocast(device.type, enabled=False)
    try:
        with torch.inference_mode(False), torch.enable_grad(), off:
            return all(_agrees(kernel, device, is_causal) for is_causal in (True, False))
    except (RuntimeError, TypeError, ValueError):
        return False


def _agrees(kernel: Kernel, device: torch.device, is_causal: bool) -> bool:
    numbers = [[0] * 5 + [1] + [2] * 18, [0] * 20 + [-1] * 4]
    documents_BT = torch.tensor(numbers, device=device)
    documents = Documents(borders(documents_BT, LEAST), is_causal, kernel)
    mask_BTS = documents_BT[:, :, None] == documents_BT[:, None, :]
    mask = (mask_BTS.tril() if is_causal else mask_BTS)[:, None]
    values = torch.arange(2 * 4 * 24 * 64, device=device).view(2, 4, 24, 64).sin().bfloat16()
    inputs = (values, values[:, :2].flip(-1), values[:, 2:].flip(-2))  # heads are shared

    def outcome(attention: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        qkv = [x.clone().requires_grad_() for x in inputs]
        out = attention(*qkv)
        gradients = torch.autograd.grad((out * values).sum(), qkv)
        return torch.cat([x.flatten().float() for x in (out, *gradients)])

    found = outcome(lambda q, k, v: attend(q, k, v, documents))
    expected = outcome(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    )
    return bool((found - expected).norm() < 0.02 * expected.norm())  # never of NaN


def find() -> Kernel | None:
    """PyTorch's `varlen_attn`, which each version has with other arguments."""
    try:
        from torch.nn.attention import varlen  # takes two seconds
    except ImportError:  # before torch 2.10
        return None
    varlen_attn: Kernel = varlen.varlen_attn  # type: ignore[assignment]
    options = inspect.signature(varlen_attn).parameters
    if "window_size" not in options:
        return None
    if "enable_gqa" in options:
        return varlen_attn

    def without(*tensors_and_lengths: Any, enable_gqa: bool, **named: Any) -> Tensor:
        return varlen_attn(*tensors_and_lengths, **named)

    return without


def can_attend(q_BHTE: Tensor, dropout: float) -> bool:
    """Whether the kernel takes such queries."""
    half = q_BHTE.dtype in (torch.bfloat16, torch.float16)
    return half and not dropout and q_BHTE.size(-1) % 8 == 0 and q_BHTE.size(-1) <= 256


def attend(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, documents: Documents) -> Tensor:
    """What SDPA computes with the mask of these documents; (B, H, T, E)."""
    rows, length = q_BHTE.size(0), q_BHTE.size(2)
    q_NHE, k_NKE, v_NKE = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BKTE, v_BKTE))
    out_NHE = documents.kernel(
        q_NHE,
        k_NKE,
        v_NKE,
        documents.borders_N,
        documents.borders_N,
        length,  # no document is longer than a row
        length,
        window_size=(-1, 0) if documents.is_causal else (-1, -1),
        enable_gqa=q_NHE.size(1) != k_NKE.size(1),
    )
    return out_NHE.unflatten(0, (rows, length)).transpose(1, 2)
