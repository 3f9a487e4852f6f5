"""Tokens/s of reading a prompt of 1024: gpt-124m with random weights, one new token, for all.

Ours has `Decoding(weights="packed")`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from benchmarks.generating import DRY, ROUNDS, ours, peer, prompts
from benchmarks.result import Result
from benchmarks.rounds import Contender, contenders, ratios, take_turns

PROMPT = 16 if DRY else 1024
WAYS = {
    "lit-llm": ("lit-llm", {"way": "packed"}),
    "transformers": ("transformers", {"static": False}),
    "transformers, static cache": ("transformers", {"static": True}),
}


def main() -> None:
    result = Result("prefill", ("name", "dtype", "tokens_per_second"), dry_run=DRY)
    result.settings(prompt=PROMPT)
    for dtype, short in {"float32": "fp32", "bfloat16": "bf16"}.items():
        makers = {
            "lit-llm": partial(ours, dtype),
            "transformers": partial(peer, "transformers", dtype),
        }
        with contenders(makers, result.not_run) as there:
            turns: dict[str, Callable[[], float]] = {
                label: partial(_tokens_per_second, there[name], arguments)
                for label, (name, arguments) in WAYS.items()
                if name in there
            }
            take_turns(turns, 1, result.not_run)  # they find their kernels
            found = take_turns(turns, ROUNDS, result.not_run)
        for label, values in found.items():
            result.add(
                name=label, dtype=short, tokens_per_second=statistics.median(values), values=values
            )
        caches = [values for label, values in found.items() if label.startswith("transformers")]
        if caches and "lit-llm" in found:
            best = [max(values) for values in zip(*caches, strict=True)]
            result.bar(f"{short}-transformers", ratios(found["lit-llm"], best))
    result.show()


def _tokens_per_second(contender: Contender, arguments: dict[str, object]) -> float:
    return PROMPT / contender.ask("turn", prompts=prompts(1, PROMPT), new=1, **arguments)


if __name__ == "__main__":
    main()
