"""Which trainer files there are for so many devices, and in which order to try them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lit_llm.planning.sharding import Spread


@dataclass(frozen=True)
class Choice:
    """A way to run, as command-line arguments say it."""

    trainer: str
    spread: Spread
    reason: str
    param_dtype: bool = False
    """gather weights in bfloat16, where bf16-mixed would keep whole copies of them"""
    eager: bool = False
    """do not compile, where the recipe would"""

    @property
    def arguments(self) -> list[str]:
        """What to add after `-c configs/trainer/...`."""
        precision = ["-c configs/precision/fsdp-bf16.yaml"] if self.param_dtype else []
        flag = "--trainer.strategy.reduce_each_micro_batch true"
        eager = ["--model.compile false"] if self.eager else []
        return precision + ([flag] if self.spread.reduce_each_micro_batch else []) + eager

    @property
    def described(self) -> str:
        """All of it."""
        return " ".join([self.trainer, *self.arguments])


def choices(devices: int, nodes: int, is_gpu: bool, precision: str) -> Iterator[Choice]:
    """Ways to run on so many devices, that with the least communication first."""
    if devices == 1:
        yield (
            Choice("gpu.yaml", Spread(), "one device holds it")
            if is_gpu
            else Choice("cpu.yaml", Spread(), "this machine holds it")
        )
        return
    yield Choice("ddp.yaml", Spread(strategy="ddp", replicate=devices), "each device holds all")
    if nodes > 1:
        inside = Spread(strategy="sharded", replicate=nodes, shard=devices // nodes)
        yield from _sharded("hsdp.yaml", inside, "a node holds it, one device does not", precision)
    shared = Spread(strategy="sharded", shard=devices)
    name = "multi-node.yaml" if nodes > 1 else "fsdp.yaml"
    yield from _sharded(name, shared, "the devices hold it together, one does not", precision)
    if devices % 2 == 0 and devices > 2:
        pairs = Spread(strategy="sharded", shard=devices // 2, tensor=2)
        reason = "one device does not hold a row's activations, a pair does"
        yield from _sharded("fsdp-tp.yaml", pairs, reason, precision)
    if nodes == 1:
        reason = "only all devices together hold a row's activations"
        yield Choice("tp.yaml", Spread(strategy="sharded", tensor=devices), reason)


def _sharded(trainer: str, spread: Spread, reason: str, precision: str) -> Iterator[Choice]:
    """A sharding strategy, then with less memory at the price of a little speed or exactness."""
    yield Choice(trainer, spread, reason)
    if precision == "bf16-mixed":
        yield Choice(trainer, spread, reason, param_dtype=True)
    each = replace(spread, reduce_each_micro_batch=True)
    yield Choice(trainer, each, reason, param_dtype=precision == "bf16-mixed")
