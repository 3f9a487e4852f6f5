"""Memory and arithmetic of the devices that people train on."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass

import torch

from lit_llm.planning.peak_flops import peak_bf16_flops

MIB = 2**20

# What the driver reports, which is a little less or more than the number in the name, or else the
# data sheet's GB. Names end in the memory: there are several versions of most.
MEMORY = {
    # nvidia-smi, as listed in github.com/modal-labs/modal-client/pull/2797
    "A100-40GB": 40_960 * MIB,
    "A100-80GB": 81_920 * MIB,
    "H100-80GB": 81_559 * MIB,
    "L4-24GB": 23_034 * MIB,
    "L40S-48GB": 46_068 * MIB,
    # nvidia-smi
    "H200-141GB": 143_771 * MIB,
    "GH200-96GB": 97_871 * MIB,
    "RTX3090-24GB": 24_576 * MIB,
    "RTX4090-24GB": 24_564 * MIB,
    "RTX5090-32GB": 32_607 * MIB,
    "B200-180GB": int(178.35 * 2**30),  # HGX and DGX; github.com/pytorch/ao/pull/4002
    "B200-192GB": 192 * 10**9,  # all of its eight stacks; data sheet of the first announcement
    "GH200-144GB": 144 * 10**9,  # nvidia.com/en-us/data-center/grace-hopper-superchip
    "MI300X-192GB": 206_141_652_992,  # rocm-smi; github.com/ROCm/legacy-rocm-build/issues/4750
}


@dataclass(frozen=True)
class Device:
    """One accelerator, or the CPU of a machine."""

    name: str
    memory: int
    """bytes"""
    peak_flops: float | None
    """bfloat16 operations per second at best; None: not known, as of a CPU"""
    is_gpu: bool = True


def device_named(name: str) -> Device:
    """A device of the table.

    Raises:
        ValueError: there is none of that name.
    """
    found = {known.lower(): known for known in MEMORY}.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.upper(), MEMORY, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"--gpu {name}: no such device; {hint}There are {', '.join(MEMORY)}")
    chip = found.rpartition("-")[0]
    return Device(found, MEMORY[found], peak_bf16_flops(chip.replace("RTX", "RTX ")))


def device_here(accelerator: str = "auto") -> Device:
    """This machine's GPU, or its CPU where it has none or `accelerator` is cpu."""
    if accelerator != "cpu" and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Device(properties.name, properties.total_memory, peak_bf16_flops(properties.name))
    memory = machine_memory()
    if memory is None:
        raise ValueError("this system does not say how much memory it has: give --gpu NAME")
    return Device("CPU of this machine", memory, None, is_gpu=False)


def machine_memory() -> int | None:
    """Bytes of memory that this machine has; None where the system does not say, as Windows."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
