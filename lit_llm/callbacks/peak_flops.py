"""How many bfloat16 operations a second a device could do at best: the 100% of MFU."""

from __future__ import annotations

import re

import torch

# Dense bfloat16 matmuls with float32 accumulation, per second, of one device; data sheets often
# print twice as much, for matrices of which half is zero. The first name that fits counts.
PEAK_BF16_FLOPS = {
    r"GB200": 2.5e15,  # nvidia.com/en-us/data-center/gb200-nvl72: 360e15 sparse, of 72 devices
    r"B200": 2.25e15,  # nvidia.com/en-us/data-center/hgx: 36e15 sparse, of 8 devices
    r"GH200": 989e12,  # nvidia.com/en-us/data-center/grace-hopper-superchip: 1979e12 sparse
    r"H200 NVL": 835e12,  # nvidia.com/en-us/data-center/h200: 1671e12 sparse
    r"H200": 989e12,  # same page: 1979e12 sparse
    r"H100 NVL": 835e12,  # nvidia.com/en-us/data-center/h100: 1671e12 sparse
    r"H100 PCIe": 756e12,  # H100 PCIe product brief PB-11133: 1513e12 sparse
    r"H100": 989e12,  # nvidia.com/en-us/data-center/h100: 1979e12 sparse
    r"A100": 312e12,  # nvidia.com/en-us/data-center/a100
    r"L40S": 362e12,  # nvidia.com/en-us/data-center/l40s
    r"L4": 121e12,  # nvidia.com/en-us/data-center/l4: 242e12 sparse
    r"RTX 5090": 209.5e12,  # NVIDIA RTX Blackwell architecture white paper, appendix A
    r"RTX 4090": 165.2e12,  # NVIDIA Ada architecture white paper, appendix A
    r"RTX 3090": 71e12,  # NVIDIA GA102 architecture white paper, table 9
}

# "A100-SXM4-80GB" and "H100 80GB HBM3" are whole words; "L40" must not count as "L4". A slice of
# a device (MIG) or its laptop version has another peak, and nobody printed it.
_NO_FULL_DEVICE = re.compile(r"\bMIG\b|Laptop|Max-Q|\b\d090 (D|Ti)\b")


def peak_bf16_flops(device_name: str) -> float | None:
    """Peak FLOP/s of a device by the name that its driver gives it; None if we do not know."""
    if _NO_FULL_DEVICE.search(device_name):
        return None
    for name, flops in PEAK_BF16_FLOPS.items():
        if re.search(rf"\b{name}\b", device_name):
            return flops
    return None


def device_name(device: torch.device) -> str:
    """The name of a GPU as its driver gives it; the kind of any other device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
