"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864).

Convention: rotate-half. Channel i turns together with channel i + E/2, as in GPT-NeoX and in
Hugging Face's Llama; Meta's own Llama weights pair channel 2i with 2i + 1 instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_llm.model import elementwise

Rope = tuple[Tensor, Tensor]
"""cos_B1TE and sin_B1TE of the positions of a batch; the 1 stands for the heads."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Slower rotations: more positions fit into the angles that a model has seen in training."""

    kind: Literal["linear", "llama3"] = "llama3"
    """linear: all slower alike (Chen et al., 2023, arXiv:2306.15595); llama3: only those of long
    wavelengths, which tell distant positions apart (Llama 3.1, 2024, arXiv:2407.21783)."""

    factor: float = 8.0
    """How many times as slow."""

    low_freq_factor: float = 1.0
    """llama3: a rotation with fewer turns than this in original_max_seq_len is slowed wholly."""

    high_freq_factor: float = 4.0
    """llama3: one with more turns than this is left as it is; between them it is blended."""

    original_max_seq_len: int = 8192
    """llama3: the context, in tokens, that the model was first trained with."""

    def __post_init__(self) -> None:
        """Reject what would divide by zero or speed rotations up."""
        if self.kind not in ("linear", "llama3"):
            raise ValueError(f"rope_scaling.kind={self.kind!r}: choose linear or llama3")
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"rope_scaling.factor={self.factor}: give a number of 1 or more")
        if not 0 < self.low_freq_factor < self.high_freq_factor < math.inf:
            raise ValueError(
                f"rope_scaling.low_freq_factor={self.low_freq_factor} must be above 0 and below "
                f"high_freq_factor={self.high_freq_factor}"
            )
        if self.original_max_seq_len < 1:
            raise ValueError(
                f"rope_scaling.original_max_seq_len={self.original_max_seq_len}: give 1 or more"
            )

    def apply(self, frequency: Tensor) -> Tensor:
        """Radians per position of each channel pair, slowed."""
        slowed = frequency / self.factor
        if self.kind == "linear":
            return slowed
        wavelength = 2 * math.pi / frequency
        low, high = self.low_freq_factor, self.high_freq_factor
        # Rounded in this order, the table equals Hugging Face's bit for bit.
        kept = (self.original_max_seq_len / wavelength - low) / (high - low)
        blended = (1 - kept) * frequency / self.factor + kept * frequency
        long = wavelength > self.original_max_seq_len / low
        short = wavelength < self.original_max_seq_len / high
        return torch.where(long, slowed, torch.where(short, frequency, blended))


def rope_table(
    positions: int,
    head_dim: int,
    *,
    theta: float = 10_000.0,
    scaling: RopeScaling | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Tabulate the cosine and sine of every rotation.

    Channel pair i turns by `t * theta ** (-2i / head_dim)` radians at position t.

    Args:
        positions: number of positions, counted from 0
        head_dim: channels of one head; even, for they turn in pairs
        theta: base of the wavelengths; larger keeps distant positions apart
        scaling: slows rotations down; None leaves them
        device: where the tables lie

    Returns:
        cos_TE and sin_TE, float32. Never bfloat16: its 8 bits of significand cannot tell
        position 256 from 257.

    Raises:
        ValueError: head_dim is odd.
    """
    if head_dim % 2:
        raise ValueError(f"RoPE rotates channels in pairs: head_dim must be even, got {head_dim}")
    if device is not None and device.type == "meta":  # its arange imports torch._dynamo: a second
        table_TE = torch.empty(positions, head_dim, dtype=torch.float32, device=device)
        return table_TE, table_TE.clone()
    pair = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device)
    # Rounded in this order, logits equal Hugging Face's bit for bit; theta ** -x is 3e-6 off.
    frequency = 1.0 / theta ** (pair / head_dim)
    if scaling is not None:
        frequency = scaling.apply(frequency)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32, device=device), frequency)
    angle_TE = torch.cat((angle, angle), dim=-1)
    return angle_TE.cos(), angle_TE.sin()


def apply_rope(x_BHTE: Tensor, rope: Rope) -> Tensor:
    """Turn queries or keys to their positions, in float32; the result has x's dtype."""
    return _Rotation.apply(x_BHTE, *rope)


class _Rotation(torch.autograd.Function):
    """Its derivative is the turn back, which needs nothing of x: so nothing of it is kept."""

    @staticmethod
    def forward(ctx: Any, x_BHTE: Tensor, cos_B1TE: Tensor, sin_B1TE: Tensor) -> Tensor:
        ctx.save_for_backward(cos_B1TE, sin_B1TE)
        return _turn(x_BHTE, cos_B1TE, sin_B1TE, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BHTE: Tensor) -> tuple[Tensor, None, None]:
        cos_B1TE, sin_B1TE = ctx.saved_tensors
        return _turn(gradient_BHTE, cos_B1TE, sin_B1TE, back=True), None, None


def _turn(x_BHTE: Tensor, cos_B1TE: Tensor, sin_B1TE: Tensor, *, back: bool) -> Tensor:
    """The halves one by one: both at once would need a copy of x with its halves exchanged."""
    if elementwise.can_compute(x_BHTE):
        return elementwise.turn(x_BHTE, cos_B1TE, sin_B1TE, back)
    sign = -1 if back else 1
    first, second = x_BHTE.float().chunk(2, dim=-1)
    cos, sin = cos_B1TE.chunk(2, dim=-1)[0], sin_B1TE.chunk(2, dim=-1)[0]  # alike in both halves
    turned_BHTE = torch.empty(x_BHTE.shape, dtype=x_BHTE.dtype, device=x_BHTE.device)
    first_out, second_out = turned_BHTE.chunk(2, dim=-1)
    first_out.copy_((first * cos).addcmul_(second, sin, value=-sign))
    second_out.copy_((second * cos).addcmul_(first, sin, value=sign))
    return turned_BHTE
