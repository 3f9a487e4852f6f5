"""Where the time of a training step goes, and the least that it could take.

    (a)   6 layers, width 384, rows of 256 tokens, a vocabulary of 4096
    (b)   gpt-124m, a row of 1024 tokens

As in train-throughput, in the precision that this processor is given by `precision: auto`. The
floor is what the step's matrix products would take at the rate of large ones, measured here. The
parts are those of configs/overlays/profile.yaml, which records a run of its own: it says how the
time is divided, not how much it is. No bar stands on this; docs/speed.md shows it.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.floor import matmul_flops
from benchmarks.measuring import Failed, fit, run
from benchmarks.result import Result
from benchmarks.training import SETTINGS, THREADS, fit_arguments, network
from lit_llm.commands.precision import auto_precision
from lit_llm.model.size import flops_per_token

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
STEPS = (1, 1, 3) if DRY else (5, 3, 3)
SECONDS = 200
PRODUCTS = ("matrix products", "attention")


def main() -> None:
    columns = ("name", "precision", "floor_share", "products_share")
    result = Result("step-time", columns, dry_run=DRY)
    for part, setting in SETTINGS.items():
        try:
            result.add(name=f"({part})", **_measured(setting["sizes"]))
        except Failed as error:
            result.not_run(f"({part})", str(error))
    result.show()


def _measured(sizes: dict[str, int]) -> dict:
    precision = auto_precision("cpu", sizes["d_model"])[0]
    arguments = fit_arguments(sizes, precision)
    found = fit(arguments, steps=STEPS, seconds=SECONDS, **THREADS)
    speed = statistics.median(found["tokens_per_second"])
    with tempfile.TemporaryDirectory() as folder:
        overlay = ["-c", "configs/overlays/profile.yaml", "--trainer.fast_dev_run=8"]
        run(
            ["cli.py", "fit", *arguments, *overlay, f"--runs_dir={folder}"],
            seconds=SECONDS,
            **THREADS,
        )
        parts = _parts((Path(folder) / "profile/profile.txt").read_text())
    config = network(sizes)
    # Half of the attention that is counted by custom is masked.
    masked = 6 * config.n_layer * config.n_head * config.channels_per_head * config.max_seq_len
    flops = flops_per_token(config) - masked
    floor = flops / matmul_flops(getattr(torch, found["dtype"]))  # seconds of a token
    return {
        "precision": found["precision"],
        "floor_share": floor * speed,
        "products_share": sum(parts.get(part, 0.0) for part in PRODUCTS),
        "parts": parts,
        "tokens_per_second": speed,
        "floor_seconds": floor * sizes["rows"] * sizes["seq_len"],
        "arguments": arguments,
    }


def _parts(text: str) -> dict[str, float]:
    """Shares of the first table of profile.txt."""
    table = text.split("\n\n")[0]
    found = re.findall(r"^(.{44}) +([\d.]+)% ", table, re.M)
    return {name.strip(): float(share) / 100 for name, share in found if name.strip() != "all"}


if __name__ == "__main__":
    main()
