"""Batches per second of the data loader alone: 32 rows of 1024 tokens, from shards on the disk.

Documents have 660 tokens on average, so most rows have a border or two. The bars are in multiples
of what a GPU could take: the tokens/s that the table gpu-ladder has to reach.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.result import Result, read_bars
from benchmarks.rounds import ROUNDS, take_turns
from lit_llm.data.loader import EndlessSampler, OrderedRows, batch_loader
from lit_llm.data.order import Order
from lit_llm.data.packing import ConcatRows
from lit_llm.data.shards import Shards, ShardWriter

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
SEQ_LEN, ROWS = 1024, 32
GPU_TOKENS_PER_SECOND = read_bars()["gpu-ladder"]["tokens-per-second"]["at_least"]
TOKENS = 100_000 if DRY else 40_000_000
BATCHES = 5 if DRY else 300  # of a turn
BARS = {0: "no-worker", 1: "one-worker"}


def main() -> None:
    columns = ("name", "batches_per_second", "tokens_per_second", "times_the_gpu")
    result = Result("load", columns, dry_run=DRY)
    with tempfile.TemporaryDirectory() as folder:
        rows = ConcatRows(Shards(write_shards(Path(folder) / "shards")), SEQ_LEN)
        loaders = {workers: batches(rows, workers) for workers in BARS}
        for loader in loaders.values():
            speed(loader)
        found = take_turns(
            {
                BARS[workers]: lambda loader=loader: speed(loader)
                for workers, loader in loaders.items()
            },
            2 if DRY else ROUNDS,
            result.not_run,
        )
        loaders.clear()
    for name, speeds in found.items():
        tokens = [batch * ROWS * SEQ_LEN for batch in speeds]
        result.add(
            name=name,
            batches_per_second=statistics.median(speeds),
            tokens_per_second=statistics.median(tokens),
            times_the_gpu=statistics.median(tokens) / GPU_TOKENS_PER_SECOND,
        )
        result.bar(name, [speed / GPU_TOKENS_PER_SECOND for speed in tokens])
    result.show()


def write_shards(folder: Path) -> Path:
    """Random documents whose lengths differ as those of texts do."""
    generator = np.random.default_rng(0)
    with ShardWriter(folder, vocab_size=50_257, tokenizer_fingerprint="none") as writer:
        while writer.n_tokens < TOKENS:
            length = int(generator.lognormal(6, 1)) + 2
            writer.append(generator.integers(0, 50_257, length))
    return folder


def batches(rows: ConcatRows, workers: int) -> Iterator[Any]:
    """Batches without end, as `fit` gets them."""
    sampler = EndlessSampler(ROWS, ROWS, first_step=lambda: 0)
    return iter(batch_loader(OrderedRows([rows], Order([len(rows)])), sampler, num_workers=workers))


def speed(loader: Iterator[Any]) -> float:
    """Batches per second."""
    before = perf_counter()
    for _ in range(BATCHES):
        next(loader)
    return BATCHES / (perf_counter() - before)


if __name__ == "__main__":
    main()
