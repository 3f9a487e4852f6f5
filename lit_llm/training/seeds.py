"""Seeds for random draws that must not depend on what was drawn before them."""

import hashlib

import torch


def mix(*parts: int) -> int:
    """A 63-bit seed that is a function of all parts: (seed, step, micro-batch, rank)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from: the generators of the CPU and of the device's kind.

    `torch.manual_seed` does the same for all kinds of devices, and for those that are not there it
    keeps the call and the text of the whole stack until they are: 1.5 ms a step on a CPU. Of other
    kinds than these four, it alone knows how they are seeded.
    """
    if device.type not in ("cpu", "cuda", "mps", "xpu"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed_all(seed)
