"""A long run with many saves and validations: do memory, open files and step time stay flat?

    SOAK_SECONDS=3600 python -m benchmarks.tables.soak

Ten minutes by default. The debug recipe's network saves each 20 steps and is validated each 40, and
is looked at after the first tenth: what is allocated once is there by then.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import gmtime, strftime

from benchmarks.process_tree import cost_of
from benchmarks.result import Result
from benchmarks.rounds import NotRun

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
SECONDS = 600 if DRY else int(os.environ.get("SOAK_SECONDS", "600"))
RECIPE = ("-c", "configs/recipes/quickstart/pretrain.yaml", "-c", "configs/overlays/debug.yaml")
PARTS = 10  # of the run, that are compared


def main() -> None:
    columns = ("name", "steps", "resident_mb", "open_files", "step_milliseconds")
    result = Result("soak", columns, dry_run=DRY)
    result.settings(seconds=SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            readings = soak(Path(folder))
        except NotRun as reason:
            result.not_run("soak", str(reason))
            result.show()
            return
    parts = [part(piece) for piece in split(readings)]
    for number, values in enumerate(parts):
        result.add(name=f"{number + 1} of {PARTS}", **values)
    first, last = parts[1], parts[-1]
    result.bar("memory", [last["resident_mb"] / first["resident_mb"]])
    result.bar("open-files", [last["open_files"] - first["open_files"]])
    result.bar("step-time", [last["step_milliseconds"] / first["step_milliseconds"]])
    result.show()


def soak(folder: Path) -> list[list[float]]:
    """Train; what the gauge has written: step, time, bytes, files."""
    gauge = folder / "gauge.csv"
    cost_of(
        [
            *(sys.executable, "cli.py", "fit", *RECIPE, f"--data.cache_dir={folder}/cache"),
            *(f"--runs_dir={folder}/runs", f"--trainer.max_steps={40 if DRY else 10**6}"),
            f"--trainer.max_time={strftime('00:%H:%M:%S', gmtime(SECONDS))}",
            *("--trainer.val_check_interval=40", "--checkpoint.every_n_steps=20"),
            "--trainer.callbacks=benchmarks.gauge.Gauge",
            f"--trainer.callbacks.path={gauge}",
        ],
        seconds=SECONDS + 600,
    )
    lines = gauge.read_text().splitlines()
    readings = [[float(value) for value in line.split(",")] for line in lines]
    if len(readings) < 2 * PARTS:
        raise NotRun(f"{len(readings)} steps are too few: give SOAK_SECONDS=N")
    return readings


def split(readings: list[list[float]]) -> list[list[list[float]]]:
    """Parts of equally many steps."""
    size = len(readings) // PARTS
    return [readings[number * size : (number + 1) * size] for number in range(PARTS)]


def part(readings: list[list[float]]) -> dict[str, float]:
    """Medians of a part; of the files the most, for those of a save are open for a moment."""
    steps, times, resident, opened = zip(*readings, strict=True)
    durations = [b - a for a, b in pairwise(times)]
    return {
        "steps": int(steps[-1]),
        "resident_mb": statistics.median(resident) / 1e6,
        "open_files": max(opened),
        "step_milliseconds": 1000 * statistics.median(durations),
    }


if __name__ == "__main__":
    main()
