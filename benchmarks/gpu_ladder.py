"""How fast gpt-124m trains, rung by rung: float32, TF32, bfloat16, compiled, sharded.

Each rung is a run of `cli.py fit` in a process of its own, on random tokens: speed and memory are
measured, and nothing is learned. The speed is the median of three stretches after 20 steps.
"""

from __future__ import annotations

import statistics

from benchmarks.measuring import (
    COMPILE,
    DRY,
    SEQ_LEN,
    Clock,
    Failed,
    fit,
    gpu_result,
    mfu,
    network,
    out_of_memory,
    speed_run,
)
from lit_llm.model.size import flops_per_token

STEPS = (1, 1, 3) if DRY else (20, 10, 3)
MICRO_BATCHES = (2,) if DRY else (32, 16, 8)  # the first that fits
SECONDS = 120  # that a rung may take

# One of PyTorch's: float32 matmuls in TF32, as torch.set_float32_matmul_precision("high") has them.
TF32 = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
PLAIN, MIXED, TRUE = (f"configs/precision/{p}.yaml" for p in ("32-true", "bf16-mixed", "bf16-true"))
FSDP, FSDP_BF16 = "configs/trainer/fsdp.yaml", "configs/precision/fsdp-bf16.yaml"
COMPILED = ["--model.compile=true"]
CHECKPOINTED = [*COMPILED, "--model.activation_checkpointing=1"]

# name, files, flags, environment; the most telling first, should the time not suffice
RUNGS: list[tuple[str, list[str], list[str], dict[str, str]]] = [
    ("bf16-mixed, compiled", [MIXED], COMPILED, {}),
    ("bf16-mixed", [MIXED], [], {}),
    ("32-true", [PLAIN], [], {}),
    ("32-true, TF32", [PLAIN], [], TF32),
    ("bf16-true", [TRUE], [], {}),
    ("bf16-mixed, compiled, Sharded x1", [FSDP, MIXED], COMPILED, {}),
    ("fsdp-bf16, compiled, Sharded x1", [FSDP, FSDP_BF16], COMPILED, {}),
    ("bf16-mixed, compiled, checkpointed", [MIXED], CHECKPOINTED, {}),
    ("bf16-true, compiled", [TRUE], COMPILED, {}),
    ("bf16-mixed, Sharded x1", [FSDP, MIXED], [], {}),
]


def main() -> None:
    clock = Clock()
    columns = ("name", "micro_batch", "tokens_per_second", "mfu", "peak_gb", "first_step_seconds")
    result = gpu_result("ladder", columns)
    result.settings(network="gpt-124m", seq_len=SEQ_LEN, steps=STEPS)
    for name, files, flags, env in RUNGS:
        if clock.left < 30:
            result.not_run(name, "the time is up")
            continue
        if not COMPILE:
            flags = [flag.replace("compile=true", "compile=false") for flag in flags]
        try:
            result.add(name=name, **_climb(files, flags, env, clock))
        except Failed as error:
            result.not_run(name, str(error))
    result.show()


def _climb(files: list[str], flags: list[str], env: dict[str, str], clock: Clock) -> dict:
    """Measure with the largest micro-batch that fits."""
    for micro_batch in MICRO_BATCHES:
        sizes = [f"--data.global_batch_size={micro_batch}"]
        arguments = [*speed_run("gpt-124m", *files), *flags, *sizes]
        try:
            found = fit(arguments, steps=STEPS, seconds=min(SECONDS, clock.left), **env)
        except Failed as error:
            if out_of_memory(error) and micro_batch != MICRO_BATCHES[-1]:
                continue
            raise
        speed = statistics.median(found["tokens_per_second"])
        return {
            "micro_batch": micro_batch,
            "tokens_per_second": speed,
            "mfu": mfu(speed, flops_per_token(network())),
            "peak_gb": found["peak_memory"] / 1e9,
            "first_step_seconds": found["first_step_seconds"],
            "stretches": found["tokens_per_second"],
            "arguments": arguments,
        }
    raise AssertionError


if __name__ == "__main__":
    main()
