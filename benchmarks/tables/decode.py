"""Tokens/s of generation: gpt-124m with random weights, greedy, a prompt of 128, 64 new tokens.

A token's time is the difference between 64 and 1 new tokens, of 16 prompts between 24 and 1, alike
for all: reading the prompt is not part of it. Ours is `Decoding(weights="packed", compile=True)`.
The peers run as their `generate` does by default, not compiled; of transformers' two caches the one
takes part that is faster at first, and litgpt in bfloat16 alone, where it has a bar. The floor is
what reading every weight once a token takes at the read bandwidth measured here, in each round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.floor import read_bandwidth
from benchmarks.generating import DRY, ROUNDS, ours, peer, prompts, sizes, weight_bytes
from benchmarks.result import Result
from benchmarks.rounds import Contender, NotRun, contenders, ratios, take_turns

PROMPT = 8 if DRY else 128
NEW = {1: 5, 16: 5} if DRY else {1: 64, 16: 24}  # tokens, by batch
FIRST = 5  # tokens of a turn that finds kernels and the faster cache
SHORT = {"float32": "fp32", "bfloat16": "bf16"}
TRANSFORMERS = ("transformers", "transformers, static cache")
Found = dict[str, list[float]]


def main() -> None:
    result = Result(
        "decode", ("name", "batch", "dtype", "tokens_per_second", "of_floor"), dry_run=DRY
    )
    result.settings(prompt=PROMPT, new_tokens=NEW, threads=torch.get_num_threads())
    for dtype in SHORT:
        makers: dict[str, Callable[[], Contender]] = {
            name: partial(peer, name, dtype)
            for name in ("transformers", "litgpt", "llama.cpp")
            if name != "litgpt" or dtype == "bfloat16"
        }
        with contenders({"lit-llm": partial(ours, dtype), **makers}, result.not_run) as there:
            for batch in NEW:
                _measure(result, there, batch, dtype)
    result.show()


def _measure(result: Result, there: dict[str, Contender], batch: int, dtype: str) -> None:
    turns: dict[str, Callable[[], float]] = {}
    first: dict[str, float] = {}
    for name, contender in there.items():
        if batch > 1 and name in ("litgpt", "llama.cpp"):
            continue
        for label, arguments in _ways(name, batch, dtype).items():
            turn = partial(_tokens_per_second, contender, batch, arguments)
            try:
                turn(FIRST)
                first[label] = turn(FIRST) if name == "transformers" else 0.0
            except NotRun as reason:
                _missing(result, batch, dtype, label, str(reason))
            else:
                turns[label] = turn
    _keep_the_faster(turns, first)
    if batch == 1:
        turns["floor"] = lambda: (
            read_bandwidth() / weight_bytes(sizes(dtype), getattr(torch, dtype))
        )
    missing = partial(_missing, result, batch, dtype)
    found = take_turns(turns, ROUNDS, missing)
    for label, values in found.items():
        share = None
        if "floor" in found and "int8" not in label:
            share = statistics.median(ratios(values, found["floor"]))
        speed = statistics.median(values)
        result.add(
            name=label,
            batch=batch,
            dtype=SHORT[dtype],
            tokens_per_second=speed,
            of_floor=share,
            values=values,
        )
    _bars(result, found, batch, SHORT[dtype])


def _missing(result: Result, batch: int, dtype: str, label: str, reason: str) -> None:
    result.not_run(f"{label}, batch {batch}, {dtype}", reason)


def _keep_the_faster(turns: dict[str, Callable[[], float]], first: dict[str, float]) -> None:
    """Drop the slower cache of transformers, for five rounds of both would take too long."""
    caches = [label for label in TRANSFORMERS if label in turns]
    for label in caches:
        if first[label] < max(first[label] for label in caches):
            del turns[label]


def _ways(name: str, batch: int, dtype: str) -> dict[str, dict[str, object]]:
    if name == "transformers":
        return {label: {"static": "static" in label} for label in TRANSFORMERS}
    if name != "lit-llm":
        return {name: {}}
    ways: dict[str, dict[str, object]] = {"lit-llm": {"way": "compiled"}}
    if batch == 1 and dtype == "bfloat16":
        ways["lit-llm, int8"] = {"way": "int8"}
    return ways


def _tokens_per_second(
    contender: Contender, batch: int, arguments: dict[str, object], new: int | None = None
) -> float:
    """NaN, which meets no bar, where one token took as long as all."""
    ids, new = prompts(batch, PROMPT), new or NEW[batch]
    one = contender.ask("turn", prompts=ids, new=1, **arguments)
    all_of_them = contender.ask("turn", prompts=ids, new=new, **arguments)
    return batch * (new - 1) / (all_of_them - one) if all_of_them > one else math.nan


def _bars(result: Result, found: Found, batch: int, dtype: str) -> None:
    if "lit-llm" not in found:
        return
    caches = [found[label] for label in TRANSFORMERS if label in found]
    best = [max(values) for values in zip(*caches, strict=True)] if caches else []
    if best:
        if batch > 1 or dtype == "bf16":
            result.bar(f"batch-{batch}-{dtype}-transformers", ratios(found["lit-llm"], best))
        if "lit-llm, int8" in found:
            result.bar("batch-1-int8-transformers", ratios(found["lit-llm, int8"], best))
    if batch > 1:
        return
    result.bar(f"batch-1-{dtype}-floor", ratios(found["lit-llm"], found["floor"]))
    if "llama.cpp" in found:
        result.bar(f"batch-1-{dtype}-llama.cpp", ratios(found["lit-llm"], found["llama.cpp"]))
    if "litgpt" in found and dtype == "bf16":
        result.bar("batch-1-bf16-litgpt", ratios(found["lit-llm"], found["litgpt"]))


if __name__ == "__main__":
    main()
