"""Seconds from the start of a process to the help, and to the first training step.

What a user waits for before anything happens. Most of it is the import of PyTorch and Lightning,
which is measured beside it, in turns: what is ours is the difference.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.result import ROOT, Result
from benchmarks.rounds import ROUNDS, NotRun, last_words, ratios, take_turns

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
RECIPE = ("-c", "configs/recipes/quickstart/pretrain.yaml", "-c", "configs/overlays/debug.yaml")
IMPORT = "import lightning"


def main() -> None:
    result = Result("start-up", ("name", "seconds", "over_import"), dry_run=DRY)
    with tempfile.TemporaryDirectory() as folder:
        recipe = [*RECIPE, f"--data.cache_dir={folder}/cache", f"--runs_dir={folder}/runs"]
        try:
            seconds_of("cli.py", "prepare", *recipe)
            found = take_turns(
                {
                    IMPORT: lambda: seconds_of("-c", IMPORT),
                    "cli.py --help": lambda: seconds_of("cli.py", "--help"),
                    "cli.py fit --help": lambda: seconds_of("cli.py", "fit", "--help"),
                    "first step": lambda: first_step(recipe, Path(folder)),
                },
                1 if DRY else ROUNDS,
            )
        except NotRun as reason:
            result.not_run("start-up", str(reason))
            result.show()
            return
    for name, seconds in found.items():
        over = statistics.median(ratios(seconds, found[IMPORT]))
        result.add(name=name, seconds=statistics.median(seconds), over_import=over, rounds=seconds)
    result.bar("help", found["cli.py --help"])
    result.bar("fit-help", ratios(found["cli.py fit --help"], found[IMPORT]))
    steps = zip(found["first step"], found[IMPORT], strict=True)
    result.bar("first-step", [step - imported for step, imported in steps])
    result.show()


def first_step(recipe: list[str], folder: Path) -> float:
    """Seconds to the end of the first step of the debug recipe, whose data is prepared."""
    stop = "--trainer.callbacks=benchmarks.first_step.EndAfterFirstStep"
    begun = folder / "first-step"
    begun.unlink(missing_ok=True)
    seconds = seconds_of("cli.py", "fit", *recipe, stop, FIRST_STEP=str(begun))
    if not begun.exists():
        raise NotRun("the run ended before its first step")
    return seconds


def seconds_of(*arguments: str, **environment: str) -> float:
    """From the start of a Python to its end."""
    before = perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    seconds = perf_counter() - before
    if done.returncode:
        raise NotRun(last_words(done.stderr))
    return seconds


if __name__ == "__main__":
    main()
