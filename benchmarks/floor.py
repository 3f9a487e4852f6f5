"""What this machine can do at most, measured: the floor under every time in docs/speed.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor

# Rows, columns in, columns out of the products that training of gpt-124m at 1024 tokens is made of.
SHAPES = ((1024, 768, 768), (1024, 768, 2048), (1024, 2048, 768), (1024, 768, 4096))
BYTES = 2**29  # more than any cache holds
REPEATS = 5


def matmul_flops(dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several large matrix products."""
    return max(_matmul_flops(*shape, dtype) for shape in SHAPES)


def _matmul_flops(rows: int, columns_in: int, columns_out: int, dtype: torch.dtype) -> float:
    x, weight = torch.randn(rows, columns_in), torch.randn(columns_out, columns_in)
    x, weight = x.to(dtype), weight.to(dtype)
    seconds = seconds_of(lambda: torch.nn.functional.linear(x, weight), times=10)
    return 2 * rows * columns_in * columns_out / seconds


def read_bandwidth() -> float:
    """Bytes per second that all threads together read from memory."""
    blocks = torch.ones(BYTES // 4)
    return BYTES / min(seconds_of(blocks.sum), seconds_of(blocks.amax))


def seconds_of(call: Callable[[], Tensor], times: int = 1) -> float:
    """Median over repeats, after one that does not count."""
    found = []
    for _ in range(REPEATS + 1):
        before = perf_counter()
        for _ in range(times):
            call()
        found.append((perf_counter() - before) / times)
    return statistics.median(found[1:])
