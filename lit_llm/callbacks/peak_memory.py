"""How much memory a process has held at most: what decides whether a larger batch would fit."""

from __future__ import annotations

import sys

import torch


def peak_memory(device: torch.device) -> int | None:
    """Bytes at the highest point since this process began, of this process alone.

    Asking does not wait for the device.

    Args:
        device: for a CUDA device (ROCm too) its memory in tensors, without what PyTorch keeps in
            reserve and without the driver's own; for the CPU the resident memory of the process,
            libraries included and data workers not

    Returns:
        None where it is not known: on Windows, and for other kinds of devices.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on macOS, else KiB
