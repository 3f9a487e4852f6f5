"""A plan as text."""

from __future__ import annotations

from collections.abc import Iterator

from lit_llm.planning.plan import USABLE, Plan

NAMES = {
    "copies": "weights in 16 bits",
    "optimizer": "optimizer state",
    "communication": "gathered, on its way",
    "other": "batch and tables",
}


def lines(plan: Plan) -> Iterator[str]:
    """The plan as text."""
    unit, name = (2**30, "GiB") if plan.needed >= 2**30 else (2**20, "MiB")

    def memory(size: float) -> str:
        return f"{size / unit:,.2f} {name}"

    adapters = f" ({plan.trained:,} learn)" if plan.trained < plan.parameters else ""
    yield (
        f"model      {plan.parameters:,} parameters{adapters}, "
        f"{plan.flops_per_token:,} FLOPs per token"
    )
    yield (
        f"step       {plan.tokens_per_step:,} tokens: {plan.devices} x {plan.accumulate} "
        f"micro-batches of {plan.micro_batch_size} rows of {plan.seq_len}"
    )
    yield f"runs on    {plan.devices} x {plan.device}, {plan.strategy}, {plan.precision}"
    yield ""
    yield f"memory of one device at its fullest, in the {plan.phase}"
    for kind, size in plan.memory.items():
        if size:
            yield f"  {NAMES.get(kind, kind):28} {memory(size):>14}"
    yield f"  {'needed':28} {memory(plan.needed):>14}"
    yield (
        f"  {'there':28} {memory(plan.usable):>14}  {USABLE:.0%} of {memory(plan.device_memory)}"
    )
    yield f"  {'':28} {'it fits' if plan.fits else 'IT DOES NOT FIT':>14}"
    yield ""
    yield f"largest micro-batch that fits  {plan.largest_micro_batch or 'none'}"
    yield (
        f"KV cache in generation         {plan.cache_bytes_per_token / 1024:,.1f} KiB per token, "
        f"{plan.cache_bytes_per_sequence / 2**20:,.1f} MiB per sequence, in 16 bits"
    )
    if plan.tokens_per_second is None:
        yield "speed                          not estimated here: give --gpu NAME"
    else:
        hours = "" if plan.hours is None else f", {plan.hours:,.1f} hours for all steps"
        yield (
            f"speed                          {plan.tokens_per_second:,.0f} tokens/s{hours}, "
            f"if MFU is {plan.mfu:.0%}"
        )
    trainer = "nothing"
    if plan.trainer:
        trainer = " ".join([f"-c configs/trainer/{plan.trainer}", *plan.arguments])
    yield f"take                           {trainer}: {plan.reason}"
    for note in plan.notes:
        yield f"                               {note}"
