"""How much of the device a network of 1.1B parameters uses: gpt-1b, rows of 2048 tokens, compiled.

Each row is a run of `cli.py fit` in a process of its own, as on the ladder. All train float32
weights; they differ in what is computed with: under autocast, or under FSDP2's mixed precision on
one device, which holds a bfloat16 copy of a block at a time; with all activations kept or without.
"""

from __future__ import annotations

import sys

from benchmarks.gpu_ladder import Run, measured
from benchmarks.measuring import (
    COMPILE,
    DRY,
    Clock,
    Failed,
    all_met,
    gpu_result,
    network,
    speed_run,
)
from lit_llm.model.size import flops_per_token

SEQ_LEN = 64 if DRY else 2048
STEPS = (1, 1, 3) if DRY else (10, 5, 3)
ROWS = (2,) if DRY else (16, 8, 4)
MANY = (4,) if DRY else (32, 16)
MIXED, SHARDED = "configs/precision/bf16-mixed.yaml", "configs/precision/fsdp-bf16.yaml"
KEEP_FEW = "--model.activation_checkpointing=1"
SETTINGS = {
    "bf16-mixed": ([MIXED], [], ROWS),
    "fsdp-bf16, Sharded x1": (["configs/trainer/fsdp.yaml", SHARDED], [], ROWS),
    "bf16-mixed, few activations kept": ([MIXED], [KEEP_FEW], MANY),
}


def main() -> None:
    clock = Clock()
    columns = ("name", "rows", "tokens_per_second", "mfu", "peak_gb", "first_step_seconds")
    result = gpu_result("large", columns)
    result.settings(network="gpt-1b", seq_len=SEQ_LEN, steps=STEPS)
    flops = flops_per_token(network("gpt-1b", SEQ_LEN))
    for name, (files, flags, rows) in SETTINGS.items():
        if clock.left < 45:
            result.not_run(name, "the time is up")
            continue
        arguments = [*speed_run("gpt-1b", *files), *flags, f"--data.seq_len={SEQ_LEN}"]
        arguments.append(f"--model.compile={str(COMPILE).lower()}")
        try:
            found = measured(Run(arguments, rows, flops), clock, STEPS)
        except Failed as error:
            result.not_run(name, str(error))
            continue
        result.add(name=name, **found)
    known = [row for row in result.values["rows"] if row["mfu"] is not None]
    if known:
        best = max(known, key=lambda row: row["mfu"])
        per_token = best["mfu"] / best["tokens_per_second"]
        result.bar("mfu", [speed * per_token for speed in best["stretches"]])
    result.show()
    sys.exit(0 if all_met(result) else 1)


if __name__ == "__main__":
    main()
