"""What each step from a plain float32 network to full speed gives: gpt-124m, rows of 1024 tokens.

Each rung is a run of `cli.py fit` in a process of its own, on random tokens: speed and memory are
measured, and nothing is learned. A rung differs from the one below by one setting of YAML. Its
speed is the median of three stretches after 20 steps.

The highest rung is measured first, then the others from below, should the time not suffice.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring import (
    COMPILE,
    DRY,
    SEQ_LEN,
    Clock,
    Failed,
    all_met,
    fit,
    gpu_result,
    mfu,
    network,
    out_of_memory,
    speed_run,
)
from lit_llm.model.size import flops_per_token

STEPS = (1, 1, 3) if DRY else (20, 10, 3)
SECONDS = 120  # that a run may take
ROWS = 2 if DRY else 16
LARGE = (4, 2) if DRY else (64, 32)  # rows of the highest rung: the first that fits

# Setting -> its value on the lowest rung. The loss of 16 rows holds 16,384 x 50,257 logits.
PLAIN = {
    "trainer.precision": "32-true",
    "model.gpt.attention": "benchmarks.plain_attention.PlainAttention",
    "model.optimizer.init_args.fused": "false",
    "model.compile": "false",
    "model.gpt.pad_vocab_to": "1",
    "model.objective.init_args.chunk_tokens": str(2**30),
}
# Rung -> what it sets otherwise than those below, or no longer.
RUNGS: dict[str, dict[str, str | None]] = {
    "float32": {},
    "bfloat16": {"trainer.precision": "bf16-mixed"},
    "SDPA": {"model.gpt.attention": None},
    "fused AdamW": {"model.optimizer.init_args.fused": "true"},
    "compiled blocks": {"model.compile": "true" if COMPILE else "false"},
    "padded vocabulary": {"model.gpt.pad_vocab_to": None},
    "loss in chunks": {"model.objective.init_args.chunk_tokens": "4" if DRY else "8192"},
    "larger batch": {},
}
TOP = list(RUNGS)[-1]


@dataclass(frozen=True)
class Run:
    """What is measured: arguments of `fit` but for the rows of a step."""

    arguments: list[str]
    rows: Sequence[int]
    flops_per_token: int


def main() -> None:
    clock = Clock()
    columns = ("name", "rows", "tokens_per_second", "mfu", "times_plain", "peak_gb")
    result = gpu_result("ladder", columns)
    result.settings(network="gpt-124m", seq_len=SEQ_LEN, steps=STEPS)
    flops = flops_per_token(network())
    for name in [TOP, *list(RUNGS)[:-1]]:
        if clock.left < 30:
            result.not_run(name, "the time is up")
            continue
        run = Run(arguments(name), LARGE if name == TOP else (ROWS,), flops)
        try:
            found = measured(run, clock)
        except Failed as error:
            result.not_run(name, str(error))
            continue
        result.add(name=name, **found)
        if name == TOP:
            result.bar("tokens-per-second", found["stretches"])
    rows = result.values["rows"]
    rows.sort(key=lambda row: list(RUNGS).index(row["name"]))
    plain = next((r["tokens_per_second"] for r in rows if r["name"] == "float32"), None)
    for row in rows:
        row["times_plain"] = plain and row["tokens_per_second"] / plain
    result.write()
    result.show()
    sys.exit(0 if all_met(result) else 1)


def arguments(rung: str) -> list[str]:
    """Of `fit`: what a rung and those below it set."""
    values: dict[str, str | None] = dict(PLAIN)
    for name, changed in RUNGS.items():
        values |= changed
        if name == rung:
            break
    objective = ["--model.objective=lit_llm.objective.CausalLM"]
    flags = [f"--{key}={value}" for key, value in values.items() if value is not None]
    return [*speed_run("gpt-124m"), *objective, *flags]


def measured(run: Run, clock: Clock, steps: tuple[int, int, int] = STEPS) -> dict:
    """Speed and memory with as many rows as fit.

    Raises:
        Failed: not even the fewest fit, or it broke.
    """
    for rows in run.rows:
        sized = [*run.arguments, f"--data.global_batch_size={rows}"]
        try:
            found = fit(sized, steps=steps, seconds=min(SECONDS, clock.left))
        except Failed as error:
            if out_of_memory(error) and rows != run.rows[-1]:
                continue
            raise
        speed = statistics.median(found["tokens_per_second"])
        return {
            "rows": rows,
            "tokens_per_second": speed,
            "mfu": mfu(speed, run.flops_per_token),
            "peak_gb": found["peak_memory"] / 1e9,
            "first_step_seconds": found["first_step_seconds"],
            "stretches": found["tokens_per_second"],
            "arguments": sized,
        }
    raise AssertionError


if __name__ == "__main__":
    main()
