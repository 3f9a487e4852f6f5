"""parity: the same training under every strategy and precision that this machine has.

Each row is a run of its own, started as a user would start it, and its losses and gradient norms
are compared with those of one process in float32. Rows in float32 must agree with it up to the
order of additions. The losses of rows in bfloat16 may be twice as far from it as those of one
process in bfloat16.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs/recipes/quickstart/pretrain.yaml"

LOSS_BOUND = 1e-5  # nats per token, float32: sums in another order
NORM_BOUND = 1e-4  # relative, float32
ROUNDING = 2.0  # how many times the single process's own rounding error a bfloat16 row may have


@dataclass(frozen=True)
class Row:
    """One way to train."""

    trainer: str
    """A file of configs/trainer/, or single"""

    processes: int
    precision: str
    """A file of configs/precision/, or compiled"""

    @property
    def name(self) -> str:
        return f"{self.trainer}-x{self.processes}-{self.precision}"

    @property
    def reference(self) -> str | None:
        """The precision of the single process whose rounding error bounds this row's."""
        if self.precision in ("32-true", "compiled"):
            return None
        # It knows no bf16 parameters beside float32 ones; activations are those of bf16-true.
        return self.precision.replace("fsdp-bf16", "bf16-true")


@dataclass(frozen=True)
class Outcome:
    """How far a row is from one process in float32."""

    row: str
    loss: float
    """Largest difference of a step's loss, nats per token"""
    loss_bound: float
    grad_norm: float
    """Largest relative difference of a step's gradient norm"""
    grad_norm_bound: float | None
    """None in bfloat16: after some steps the norm of one batch is a throw of dice. That a single
    gradient is as near as one process's is tested in tests/training/test_strategy.py."""

    @property
    def within(self) -> bool:
        """Whether both are inside their bounds; NaN is not."""
        bound = self.grad_norm_bound
        return self.loss <= self.loss_bound and (bound is None or self.grad_norm <= bound)


TRUTH = Row("single", 1, "32-true")
ROWS = [
    TRUTH,
    *(Row("single", 1, precision) for precision in ("bf16-mixed", "bf16-true")),
    *(Row("ddp", 2, precision) for precision in ("32-true", "bf16-mixed", "bf16-true")),
    Row("fsdp", 1, "32-true"),
    *(Row("fsdp", 2, p) for p in ("32-true", "bf16-mixed", "bf16-true", "fsdp-bf16")),
    *(Row("tp", 2, p) for p in ("32-true", "bf16-mixed", "bf16-true", "fsdp-bf16")),
    *(Row("fsdp-tp", 4, p) for p in ("32-true", "bf16-mixed", "bf16-true", "fsdp-bf16")),
    *(Row("hsdp", 4, p) for p in ("32-true", "bf16-mixed", "bf16-true", "fsdp-bf16")),
]
# A GPU is waiting to be used by compiled blocks, and FSDP2 on one device is a path of its own.
GPU_ROWS = [
    Row("single", 1, "compiled"),
    *(Row(trainer, n, "16-mixed") for trainer, n in (("single", 1), ("ddp", 2))),
    *(Row("fsdp", 1, precision) for precision in ("bf16-mixed", "fsdp-bf16")),
]

Curve = list[tuple[float, float]]
"""(loss, gradient norm) of every step."""


def run(command: str, arguments: list[str]) -> None:
    """Run parity; exits with 1 if a row is out of its bounds."""
    options = _options(arguments)
    console = Console()
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    rows = _chosen(ROWS + GPU_ROWS * (devices > 0), options.only)
    outcomes: list[Outcome] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        curves: dict[str, Curve] = {}
        for row in rows:
            if devices and row.processes > devices:
                missing.append(f"{row.name}: needs {row.processes} devices, here are {devices}")
                continue
            for needed in _needed(row):
                if needed.name not in curves:
                    console.print(f"{needed.name} ...", highlight=False)
                    curves[needed.name] = _train(needed, options, Path(folder), devices > 0)
            outcomes.append(compare(row, curves))
    console.print(_table(outcomes))
    console.print(
        "The largest difference of a step: of the loss in nats per token, of grad_norm relative.\n"
        "The bound of a bf16 row is twice the difference of one process in bf16.",
        highlight=False,
    )
    for line in missing:
        console.print(f"not run: {line}", highlight=False)
    if options.out:
        result = {"torch": torch.__version__, "steps": options.steps, "missing": missing}
        result["rows"] = [{**asdict(o), "within": o.within} for o in outcomes]
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")
    if not all(outcome.within for outcome in outcomes):
        sys.exit(1)


def compare(row: Row, curves: dict[str, Curve]) -> Outcome:
    """Hold a row's curve against those that decide its bounds."""
    truth = curves[TRUTH.name]
    losses, norms = differences(curves[row.name], truth)
    if row.reference is None:
        return Outcome(row.name, largest(losses), LOSS_BOUND, largest(norms), NORM_BOUND)
    own_losses, _ = differences(curves[Row("single", 1, row.reference).name], truth)
    return Outcome(row.name, largest(losses), ROUNDING * largest(own_losses), largest(norms), None)


def differences(curve: Curve, truth: Curve) -> tuple[list[float], list[float]]:
    """Of each step's loss, in nats per token, and of its gradient norm, relative."""
    if len(curve) != len(truth):
        raise ValueError(f"a run of {len(truth)} steps logged {len(curve)}: see its output above")
    pairs = list(zip(curve, truth, strict=True))
    return [abs(a[0] - b[0]) for a, b in pairs], [abs(a[1] / b[1] - 1) for a, b in pairs]


def largest(sizes: list[float]) -> float:
    """NaN if there is one: max() would pass over it."""
    return math.nan if any(map(math.isnan, sizes)) else max(sizes)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python cli.py parity", description=__doc__)
    parser.add_argument("-c", "--config", action="append", help=f"recipe, by default {RECIPE.name}")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each run")
    parser.add_argument("--only", default="", help="rows whose name contains this, such as fsdp-x2")
    parser.add_argument("--out", help="write the table to this JSON file too")
    options, flags = parser.parse_known_args(arguments)
    options.flags = flags
    options.config = options.config or [str(RECIPE)]
    if options.steps < 1:
        raise ValueError(f"--steps={options.steps} is no number of steps: give 1 or more")
    return options


def _chosen(rows: list[Row], only: str) -> list[Row]:
    chosen = [row for row in rows if only in row.name]
    if not chosen:
        raise ValueError(
            f"no row is called {only!r}: give --only a part of one of "
            f"{', '.join(row.name for row in rows)}"
        )
    return [TRUTH, *(row for row in chosen if row != TRUTH)]


def _needed(row: Row) -> Iterator[Row]:
    """A row and those that its bounds are taken from."""
    yield TRUTH
    if row.reference is not None:
        yield Row("single", 1, row.reference)
    yield row


def _train(row: Row, options: argparse.Namespace, folder: Path, gpu: bool) -> Curve:
    """Run a row in processes of its own and read its curve."""
    trainer = row.trainer if row.trainer != "single" else "gpu" if gpu else "cpu"
    files = [*options.config, str(ROOT / f"configs/trainer/{trainer}.yaml")]
    precision = "32-true" if row.precision == "compiled" else row.precision
    files.append(str(ROOT / f"configs/precision/{precision}.yaml"))
    command = [sys.executable]
    if row.processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(row.processes), "--"]
    command += [str(ROOT / "cli.py"), "fit"]
    command += [part for file in files for part in ("-c", file)]
    command += [f"--run={row.name}", f"--runs_dir={folder}", f"--trainer.max_steps={options.steps}"]
    command += ["--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0"]
    command += ["--samples.n_prompts=0", "--model.gpt.dropout=0", *options.flags]
    command += [f"--model.compile={str(row.precision == 'compiled').lower()}"]
    if row.precision == "16-mixed":
        command += ["--model.optimizer.init_args.fused=false"]
    if not gpu:
        command += ["--trainer.accelerator=cpu"]  # auto would be an Apple GPU
    finished = subprocess.run(command, capture_output=True, text=True, env=_environment(row))
    if finished.returncode:
        raise ValueError(f"{row.name} did not train: {_last_words(finished.stderr)}")
    return read_curve(folder / row.name / "metrics.csv")


def _environment(row: Row) -> dict[str, str]:
    """Processes on one CPU share its cores; torchrun would give each of them one thread."""
    threads = max(1, (os.cpu_count() or 1) // row.processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}


def read_curve(path: Path) -> Curve:
    """Loss and gradient norm of every logged step of a run."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return [(float(row["train/loss"]), float(row["train/grad_norm"])) for row in rows]


def _last_words(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if "rror" in line]
    return lines[0] if lines else stderr[-300:]


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="Distance to one process in float32", title_justify="left")
    table.add_column("row", no_wrap=True)
    for name in ("loss", "bound", "grad_norm", "bound", ""):
        table.add_column(name, justify="right")
    for o in outcomes:
        numbers = (o.loss, o.loss_bound, o.grad_norm, o.grad_norm_bound)
        verdict = "ok" if o.within else "OUT"
        shown = ("-" if number is None else f"{number:.1e}" for number in numbers)
        table.add_row(o.row, *shown, verdict)
    return table
