"""Row 19: hundreds of saves with pruning leave the process and the disk as they were."""

import os
import signal
import statistics
import time
from pathlib import Path

from lit_llm.checkpoint.find import LAST, checkpoints, choose
from tests.torture.rows import row
from tests.torture.saves import resume
from tests.torture.state import leftovers

WARM_UP = 20  # saves, in which allocators and caches find their size
KEPT = 2


def look_in(running, run: Path, draw) -> int:
    """Stop the process at random moments, and load `last` as a new run would; how often it did."""
    looked = 0
    while running.alive():
        time.sleep(draw.uniform(0, 0.5))
        if not checkpoints(run) or not running.alive():
            continue
        os.kill(running.pid, signal.SIGSTOP)
        try:
            assert resume(choose(LAST, run).folder)["global_step"] > 0
            looked += 1
        finally:
            os.kill(running.pid, signal.SIGCONT)
    return looked


def slope(values: list[int]) -> float:
    """Growth from the first to the last by a line through all, relative to the first."""
    line = statistics.linear_regression(range(len(values)), values)
    return line.slope * (len(values) - 1) / line.intercept


@row(19)
def test_saves_with_pruning_leave_memory_files_and_disk_as_they_were(
    trials, draw, launch, tiny_fit_arguments, tmp_path
):
    saves, pause = (300, 0.3) if trials.full_tier else (30, 0.0)  # about two minutes
    run = tmp_path / "soak"
    running = launch(
        *tiny_fit_arguments(tmp_path, "--run=soak", f"--trainer.max_steps={saves}"),
        *("--checkpoint.every_n_steps=1", f"--checkpoint.keep_last={KEPT}"),
        *("--trainer.val_check_interval=1000", "--samples.every_n_steps=1000"),
        *("--trainer.callbacks+=tests.torture.gauge.Gauge", f"--trainer.callbacks.pause={pause}"),
    )
    looked = look_in(running, run, draw)
    assert running.wait(1200) == 0, running.err
    lines = [line.split(",") for line in (run / "gauge.csv").read_text().splitlines()]
    steps, resident, opened, disk = (list(map(int, column)) for column in zip(*lines, strict=True))
    assert steps == list(range(1, saves + 1))
    one = sum(path.stat().st_size for path in checkpoints(run)[-1].iterdir())
    for trial in trials(full=300, fast=30):
        with trial:
            assert disk[trial.number] <= KEPT * one * 1.01
            if trial.number >= WARM_UP:
                assert opened[trial.number] == opened[WARM_UP]
    with trials.one():  # what only the whole can show
        warm = resident[WARM_UP:]
        grown = slope(warm) if trials.full_tier else max(warm) / warm[0] - 1
        print(f"memory {grown:+.2%}, {opened[-1]} files open, {disk[-1]:,} bytes on disk")
        print(f"`last` was loaded at {looked} moments")
        assert grown < 0.05, f"{grown:.1%} more memory: {warm[0]:,} to {warm[-1]:,} bytes"
        assert looked >= (10 if trials.full_tier else 1)
        assert [path.name for path in checkpoints(run)] == [
            f"step-{step:08d}" for step in range(saves - KEPT + 1, saves + 1)
        ]
        assert resume(choose(LAST, run).folder)["global_step"] == saves
        assert not leftovers(run)
