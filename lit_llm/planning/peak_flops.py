"""How many operations a second a device could do at best: the 100% of MFU."""

from __future__ import annotations

import re
from time import perf_counter

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
    r"A40": 149.7e12,  # NVIDIA A40 data sheet: 299.4e12 sparse
    r"A10": 125e12,  # NVIDIA A10 data sheet: 250e12 sparse
    r"A10G": 70e12,  # NVIDIA A10G data sheet for AWS: 140e12 sparse; not the same chip as an A10
    r"L40S": 362e12,  # nvidia.com/en-us/data-center/l40s
    r"L40": 181e12,  # nvidia.com/en-us/data-center/l40: 362e12 sparse
    r"L4": 121e12,  # nvidia.com/en-us/data-center/l4: 242e12 sparse
    r"RTX PRO 6000 Blackwell Workstation": 503.8e12,  # RTX Blackwell PRO architecture white paper
    r"RTX 6000 Ada": 364.2e12,  # Ada architecture white paper for RTX 6000: 728.5e12 sparse
    r"RTX 5090": 209.5e12,  # NVIDIA RTX Blackwell architecture white paper, appendix A
    r"RTX 4090": 165.2e12,  # NVIDIA Ada architecture white paper, appendix A
    r"RTX 3090": 71e12,  # NVIDIA GA102 architecture white paper, table 9
    r"MI325X": 1307.4e12,  # AMD Instinct MI325X data sheet: 2614.9e12 sparse
    r"MI300X": 1307.4e12,  # AMD Instinct MI300X data sheet: 2614.9e12 sparse
    r"MI250X": 191.5e12,  # AMD Instinct MI250X data sheet: 383e12; each half of it is a device
    # No bfloat16: the peak is that of float16, for 16-mixed is what one trains in there.
    r"V100S": 130e12,  # NVIDIA V100 data sheet, January 2020, as the next two
    r"V100-PCIE": 112e12,
    r"V100-SXM2": 125e12,
    r"T4": 65e12,  # NVIDIA T4 data sheet
}

# "A100-SXM4-80GB" and "H100 80GB HBM3" are whole words; "L40" must not count as "L4". A slice of
# a device (MIG; "A10-8Q", a virtual GPU) or its laptop version has another peak, and nobody
# printed it.
_NO_FULL_DEVICE = re.compile(r"\bMIG\b|-\d+[ABCQ]\b|Laptop|Max-Q|\b\d090 (D|Ti)\b")

_MEASURING_SECONDS = 0.3
_LARGEST_MATRIX = 2048  # with its product 34 MB in float32


def peak_bf16_flops(device_name: str) -> float | None:
    """Peak FLOP/s of a device by the name that its driver gives it; None if we do not know.

    In bfloat16; in float16 for devices without it.
    """
    if _NO_FULL_DEVICE.search(device_name):
        return None
    for name, flops in PEAK_BF16_FLOPS.items():
        if re.search(rf"\b{name}\b", device_name):
            return flops
    return None


def measured_cpu_flops(dtype: torch.dtype) -> float:
    """The most FLOP/s that a square matmul reaches on this CPU now, with PyTorch's threads.

    No data sheet knows a CPU's peak: it depends on the kernels, on the number of threads and on
    what else the machine does. Takes 0.3 s: matrices double in size while the next ones are
    expected to fit into what is left of that; the best of all rounds counts.

    Args:
        dtype: of the matrices
    """
    end = perf_counter() + _MEASURING_SECONDS
    best, size, rounds = 0.0, 512, 0  # below 512 threads wait for each other more than they work
    a = torch.full((size, size), 0.5, dtype=dtype)
    while (before := perf_counter()) < end and not (size == _LARGEST_MATRIX and rounds == 3):
        torch.mm(a, a)
        now = perf_counter()
        best, rounds = max(best, 2 * size**3 / (now - before)), rounds + 1
        # Two rounds at least: the first finds the kernel and touches the memory.
        if rounds >= 2 and size < _LARGEST_MATRIX and 2 * 2 * (2 * size) ** 3 / best < end - now:
            size, rounds = 2 * size, 0
            a = torch.full((size, size), 0.5, dtype=dtype)
    return best


def device_name(device: torch.device) -> str:
    """The name of a GPU as its driver gives it; the kind of any other device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
