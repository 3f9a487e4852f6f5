"""Will it fit, how fast may it be, and which trainer file is the one to take?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from lit_llm.model.size import Size, size
from lit_llm.planning.choices import Choice, choices
from lit_llm.planning.devices import Device
from lit_llm.planning.ledger import Bytes, Phases
from lit_llm.planning.sharding import Spread, local_job, per_device
from lit_llm.planning.stand_in import no_compiler
from lit_llm.planning.trace import Job, Trace

USABLE = 0.92
"""Share of a device's memory that may be planned for. The rest is for what is not counted: the
driver's context, memory inside kernels, the allocator's rounding and gaps."""

MANY = 1024  # devices that are thought of at most
_LOOKS = 5  # micro-batches that are measured at most in the search for the largest


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is to be run, and on what."""

    job: Job
    device: Device
    spread: Spread
    nodes: int = 1
    global_batch_size: int
    micro_batch_size: int | None = None
    """rows that a device takes at a time; None: all of its share"""
    max_steps: int = -1
    mfu: float = 0.4
    """share of the device's peak that is expected to be reached"""

    @property
    def rows(self) -> int:
        """Rows of a micro-batch."""
        return self.micro_batch_size or max(1, self.global_batch_size // self.spread.data_parallel)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known before anything runs; memory in bytes, of one device."""

    parameters: int
    trained: int
    """all, or the adapters alone"""
    flops_per_token: int
    tokens_per_step: int
    device: str
    device_memory: int
    devices: int
    strategy: str
    precision: str
    seq_len: int
    micro_batch_size: int
    accumulate: int
    memory: Bytes
    """by kind, when most is held"""
    phase: str
    """when that is"""
    phases: dict[str, float]
    """the most that each phase holds"""
    needed: float
    usable: float
    fits: bool
    largest_micro_batch: int | None
    """None: not even the smallest fits"""
    cache_bytes_per_token: int
    cache_bytes_per_sequence: int
    mfu: float
    tokens_per_second: float | None
    hours: float | None
    trainer: str | None
    """file below configs/trainer/; None: nothing fits"""
    arguments: list[str]
    """to be added to it"""
    reason: str
    notes: list[str] = field(default_factory=list)


def plan_run(run: Run) -> Plan:
    """Plan a run without allocating its model.

    Raises:
        ValueError: the global batch does not split into micro-batches, or a size not over devices.
    """
    with no_compiler():
        return _plan(run)


def _plan(run: Run) -> Plan:
    planner = _Planner(run)
    accumulate = planner.accumulate(run.rows, run.spread)
    phases = planner.phases(run.rows, run.spread, run.job)
    totals = {phase: sum(kinds.values()) for phase, kinds in phases.items()}
    phase = max(totals, key=lambda name: totals[name])
    counts = size(run.job.gpt, run.job.seq_len, run.job.lora)
    speed = _tokens_per_second(run, counts)
    tokens_per_step = run.global_batch_size * run.job.seq_len
    choice, notes = planner.recommend()
    return Plan(
        parameters=counts.parameters,
        trained=counts.trained,
        flops_per_token=counts.flops_per_token,
        tokens_per_step=tokens_per_step,
        device=run.device.name,
        device_memory=run.device.memory,
        devices=run.spread.devices,
        strategy=_describe(run.spread),
        precision=run.job.precision,
        seq_len=run.job.seq_len,
        micro_batch_size=run.rows,
        accumulate=accumulate,
        memory=phases[phase],
        phase=phase,
        phases=totals,
        needed=totals[phase],
        usable=planner.usable,
        fits=totals[phase] <= planner.usable,
        largest_micro_batch=planner.largest(run.spread, run.job),
        cache_bytes_per_token=counts.cache_bytes_per_token,
        cache_bytes_per_sequence=counts.cache_bytes_per_token * run.job.gpt.max_seq_len,
        mfu=run.mfu,
        tokens_per_second=speed,
        hours=run.max_steps * tokens_per_step / speed / 3600
        if speed and run.max_steps > 0
        else None,
        trainer=choice.trainer if choice else None,
        arguments=choice.arguments if choice else [],
        reason=choice.reason if choice else f"{run.spread.devices} x {run.device.name} hold none",
        notes=notes,
    )


class _Planner:
    """Memory of one run on this or that number of devices; measures nothing twice."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.usable = USABLE * run.device.memory
        self._traces: dict[tuple, Trace] = {}

    def phases(self, rows: int, spread: Spread, job: Job) -> Phases:
        """Memory of one device by phase and kind."""
        key = (spread.tensor, job.precision, job.param_dtype, job.activation_checkpointing)
        if key not in self._traces:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._traces[key] = Trace(local_job(job, spread.tensor), device)
        accumulating = self.accumulate(rows, spread) > 1
        traced = self._traces[key].at(rows, accumulating=accumulating)
        return per_device(traced, job, spread, rows, accumulating=accumulating)

    def accumulate(self, rows: int, spread: Spread) -> int:
        """Micro-batches of a step."""
        at_once = rows * spread.data_parallel
        steps, rest = divmod(self.run.global_batch_size, at_once)
        if rest or not steps:
            raise ValueError(
                f"data.global_batch_size={self.run.global_batch_size} is no multiple of the "
                f"{at_once} rows that {spread.data_parallel} devices take at a time,\n{rows} each: "
                "change it, or data.micro_batch_size, or the number of devices"
            )
        return steps

    def largest(self, spread: Spread, job: Job) -> int | None:
        """The largest micro-batch that fits and divides the global batch; None: none fits."""
        share, rest = divmod(self.run.global_batch_size, spread.data_parallel)
        if rest or not share:
            return None
        divisors = [rows for rows in range(1, share + 1) if share % rows == 0]
        begin = max(rows for rows in divisors if rows <= max(1, self.run.rows))

        def needed(rows: int) -> float:
            return max(sum(kinds.values()) for kinds in self.phases(rows, spread, job).values())

        return _largest(divisors, begin, needed, self.usable)

    def first(self, devices: int, nodes: int, job: Job) -> tuple[Choice, int] | None:
        """The first choice that holds a micro-batch, and the largest that it holds."""
        for choice in choices(devices, nodes, self.run.device.is_gpu, job.precision):
            leaner = job
            if choice.param_dtype:
                leaner = replace(job, precision="32-true", param_dtype=torch.bfloat16)
            if choice.spread.tensor > 1 and job.compile:
                choice, leaner = replace(choice, eager=True), replace(leaner, compile=False)
            try:
                rows = self.largest(choice.spread, leaner)
            except ValueError:  # a size does not split over so many devices
                continue
            if rows is not None:
                return choice, rows
        return None

    def recommend(self) -> tuple[Choice | None, list[str]]:
        """What to take, and what else to say."""
        run = self.run
        job = run.job
        if job.param_dtype is not None:  # of one strategy only
            job = replace(job, precision="bf16-mixed", param_dtype=None)
        found = self.first(run.spread.devices, run.nodes, job)
        if found is None:
            return None, self._help(job)
        choice, rows = found
        if run.micro_batch_size is None or rows >= run.micro_batch_size:
            return choice, []
        return choice, [
            f"micro-batches of {run.micro_batch_size} do not fit there: "
            f"give --data.micro_batch_size {rows} (the curve stays the same)"
        ]

    def _help(self, job: Job) -> list[str]:
        """What would make it fit, tried out."""
        run, notes = self.run, []
        if not job.activation_checkpointing:
            leaner = replace(job, activation_checkpointing=1)
            if found := self.first(run.spread.devices, run.nodes, leaner):
                notes.append(
                    f"--model.activation_checkpointing 1 makes it fit: {found[0].described}"
                )
        count = run.spread.devices * 2
        while run.device.is_gpu and count <= MANY:
            if found := self.first(count, 1, job):
                notes.append(f"{count} such devices hold it: {found[0].described}")
                break
            count *= 2
        return notes or ["neither activation checkpointing nor more devices would help"]


def _largest(
    sizes: Sequence[int], begin: int, needed: Callable[[int], float], usable: float
) -> int | None:
    """The largest of `sizes` whose need is met, by a line through the sizes looked at so far."""
    known = {begin: needed(begin)}
    for _ in range(_LOOKS):
        fitting = [n for n in known if known[n] <= usable]
        above = min((n for n in known if known[n] > usable), default=max(sizes) + 1)
        open_sizes = [n for n in sizes if max(fitting, default=0) < n < above]
        if not open_sizes:
            break
        guess = _guess(known, usable)
        likely = [n for n in open_sizes if n <= guess]
        if not likely and fitting:
            break  # the line says that the next one is too large
        look = max(likely) if likely else min(open_sizes)
        known[look] = needed(look)
    return max((n for n in known if known[n] <= usable), default=None)


def _guess(known: dict[int, float], usable: float) -> float:
    if len(known) == 1:
        ((rows, need),) = known.items()
        return rows * usable / need  # too low if it fits, for weights do not grow with the rows
    (n_0, need_0), (n_1, need_1) = sorted(known.items())[-2:]
    slope = (need_1 - need_0) / (n_1 - n_0)
    return n_1 + (usable - need_1) / slope if slope > 0 else float("inf")


def _tokens_per_second(run: Run, counts: Size) -> float | None:
    if run.device.peak_flops is None:
        return None
    return run.mfu * run.device.peak_flops * run.spread.devices / counts.flops_per_token


def _describe(spread: Spread) -> str:
    if spread.strategy != "sharded":
        return spread.strategy
    sizes = {"replicate": spread.replicate, "shard": spread.shard, "tensor": spread.tensor}
    return "sharded: " + " x ".join(f"{name} {n}" for name, n in sizes.items() if n > 1)
