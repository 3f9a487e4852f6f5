"""Generation by gpt-124m in bfloat16, beside what the memory's bandwidth allows.

Our network generates as it was trained, and as a copy whose step of one prompt is compiled; bars
are of the faster one. Each new token needs every weight and every key and value so far, once per
step: these bytes over the bandwidth of a large copy, measured here, are the least time that a step
can take. A step is timed as the difference between many new tokens and one, so reading the prompt
is not part of it. transformers generate with a cache that grows and with a static one, with which
they compile their step; what counts is the better one of each round.
Weights are random: what is generated means nothing and takes as long.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_contenders import peer_network
from benchmarks.measuring import (
    COMPILE,
    DRY,
    VOCABULARY,
    Clock,
    all_met,
    copy_bandwidth,
    device,
    gpu_result,
    network,
    out_of_memory,
    seconds_of,
)
from benchmarks.result import Result
from benchmarks.rounds import NotRun, ratios
from lit_llm.generation import Decoding, Sampling, fast_copy, generate
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.size import size

BATCHES = (1, 2) if DRY else (1, 8, 64)
PROMPT, NEW = (8, 8) if DRY else (128, 256)
ROUNDS = 1 if DRY else 5
GREEDY = {"do_sample": False, "use_cache": True}

Run = Callable[[torch.Tensor, int], None]
"""Continues prompts_BT by so many tokens."""


def main() -> None:
    clock = Clock()
    columns = ("name", "batch", "tokens_per_second", "ms_per_step", "share_of_bound", "prefill_ms")
    result = gpu_result("decode", columns)
    bandwidth = copy_bandwidth(device())
    result.settings(prompt=PROMPT, new_tokens=NEW, copy_bytes_per_second=bandwidth)
    print(f"  a large copy moves {bandwidth / 1e12:.3g} TB/s")
    runs: dict[str, Run] = {}
    for name, prepare in CONTENDERS.items():
        try:
            runs[name] = prepare()
        except NotRun as reason:
            result.not_run(name, str(reason))
    for batch in BATCHES:
        if clock.left < 60:
            result.not_run(f"batch {batch}", "the time is up")
            continue
        steps = _measure(runs, batch, bandwidth, result)
        both = [steps[name] for name in (OURS, COMPILED) if name in steps]
        if not both:
            continue
        ours = min(both, key=statistics.median)
        if batch == BATCHES[0]:
            least = bytes_per_step(batch) / bandwidth
            result.bar("batch-1-bandwidth", [least / step for step in ours])
        theirs = [steps[name] for name in (THEIRS, STATIC) if name in steps]
        if batch == BATCHES[-1] and theirs:
            best = [min(rounds) for rounds in zip(*theirs, strict=True)]
            result.bar("batch-64-transformers", ratios(best, ours))
    result.show()
    print("share_of_bound: least time of a step by bandwidth / its time")
    sys.exit(0 if all_met(result) else 1)


def _measure(
    runs: dict[str, Run], batch: int, bandwidth: float, result: Result
) -> dict[str, list[float]]:
    """Let all take turns; seconds of a step in each round, by name."""
    generator = torch.Generator().manual_seed(batch)
    prompts_BT = torch.randint(VOCABULARY, (batch, PROMPT), generator=generator)
    there = {}
    for name, run in runs.items():
        try:
            run(prompts_BT, NEW)  # finds its kernels, compiles
            there[name] = run
        except Exception as error:
            if name == OURS and not out_of_memory(error):
                raise
            words = f"{type(error).__name__}: {str(error)[:200]}"
            result.not_run(f"{name}, batch {batch}", words)
    firsts: dict[str, list[float]] = {name: [] for name in there}
    steps: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(ROUNDS):
        for name, run in there.items():
            first, whole = (seconds_of(partial(run, prompts_BT, new), device()) for new in (1, NEW))
            firsts[name].append(first)
            steps[name].append((whole - first) / (NEW - 1))
    least = bytes_per_step(batch) / bandwidth
    for name in there:
        step = statistics.median(steps[name])
        result.add(
            name=name,
            batch=batch,
            tokens_per_second=batch / step,
            ms_per_step=1e3 * step,
            share_of_bound=least / step,
            prefill_ms=1e3 * statistics.median(firsts[name]),
            least_ms_per_step=1e3 * least,
            rounds=steps[name],
        )
    return steps


def bytes_per_step(batch: int) -> int:
    """What a step has to read at least, in 16 bits; keys and values as on the average step."""
    counts = size(network())
    weights = 2 * (counts.parameters - counts.embedding_parameters)
    return weights + batch * (PROMPT + NEW // 2) * counts.cache_bytes_per_token


def _ours(decoding: Decoding) -> Run:
    config = network()
    gpt = GPT(config)
    init_weights(gpt, 1337, config.n_layer)
    gpt.to(device(), torch.bfloat16)
    fast = fast_copy(gpt, decoding)

    def run(prompts_BT: torch.Tensor, new: int) -> None:
        found = generate(fast, prompts_BT.tolist(), Sampling(max_new_tokens=new))
        assert all(len(row.ids) == new for row in found)

    return run


def _transformers(**options: Any) -> Run:
    llama: Any = peer_network("transformers")[0]
    llama.eval().to(torch.bfloat16)

    def run(prompts_BT: torch.Tensor, new: int) -> None:
        ids = prompts_BT.to(device())
        ones = torch.ones_like(ids)
        found = llama.generate(ids, attention_mask=ones, max_new_tokens=new, **GREEDY, **options)
        assert found.shape[1] == PROMPT + new

    return run


OURS, COMPILED = "lit-llm", "lit-llm, compiled"
THEIRS, STATIC = "transformers", "transformers, static cache"
CONTENDERS: dict[str, Callable[[], Run]] = {
    OURS: lambda: _ours(Decoding()),
    COMPILED: lambda: _ours(Decoding(compile=COMPILE)),
    THEIRS: _transformers,
    STATIC: lambda: _transformers(cache_implementation="static"),
}

if __name__ == "__main__":
    main()
