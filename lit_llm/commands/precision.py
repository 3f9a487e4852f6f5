"""`trainer.precision: auto`: the numbers that suit the device and the network."""

from __future__ import annotations

from typing import Any

import torch

# d_model from which bfloat16 on a CPU was measured to be faster than float32, each at 4 layers
AMX_PAYS_FROM = 256  # 1.6 times as fast; 0.7 times at 128
AVX512_PAYS_FROM = 128  # with AVX-512's bfloat16 but no AMX: 1.7 times; 1.2 at 64, 1.8 at 256


def device_kind(accelerator: str) -> str:
    """What Lightning's Trainer makes of `trainer.accelerator`: cpu, cuda, mps or another name.

    `auto` and `gpu` look at the machine, in Lightning's order; `gpu` stays where there is none.
    """
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

    kinds: dict[str, type[Any]] = {
        "tpu": XLAAccelerator,
        "mps": MPSAccelerator,
        "cuda": CUDAAccelerator,
    }
    if accelerator == "gpu":
        kinds.pop("tpu")
    elif accelerator != "auto":
        return accelerator
    there = [kind for kind, device in kinds.items() if device.is_available()]
    return there[0] if there else ("cpu" if accelerator == "auto" else accelerator)


def auto_precision(kind: str, d_model: int | None) -> tuple[str, str]:
    """Choose a precision.

    Args:
        kind: of device, see `device_kind`
        d_model: width of the network; None: whatever its default is, which is small

    Returns:
        The precision and the reason, in a few words.
    """
    if kind == "cuda" and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", f"{name} computes in bfloat16"
        return "32-true", f"{name} has no bfloat16; 16-mixed is faster, with a scaled loss"
    if kind != "cpu":
        return "32-true", f"safe on every {kind} device"
    if torch.cpu._is_amx_tile_supported():
        part, pays_from = "AMX", AMX_PAYS_FROM
    elif torch.cpu._is_avx512_bf16_supported():
        part, pays_from = "AVX-512 in bfloat16", AVX512_PAYS_FROM
    else:
        return "32-true", "a CPU without AMX or AVX-512 in bfloat16 is slower in it"
    if (d_model or 0) < pays_from:
        return "32-true", f"{part} pays from d_model={pays_from} on"
    return "bf16-mixed", f"a CPU with {part}"
