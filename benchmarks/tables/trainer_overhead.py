"""What the Trainer and our default callbacks add to a step, in milliseconds.

Three loops around steps that do next to nothing, each in a process that stays, take turns: a bare
loop of PyTorch, Lightning's Trainer with our module, and `cli.py fit` with all that it turns on by
default: loggers, checkpoints, guards, watchdog. Differences are of medians over 2,000 steps.
Those of means stand beside them: every tenth step logs, every eighth one moves the spike guard on.
"""

from __future__ import annotations

import json
import os
import statistics

from benchmarks.result import Result, results_folder
from benchmarks.rounds import ROUNDS, Contender, contenders, take_turns

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
STEPS = 20 if DRY else 2000
LOOPS = ("bare", "trainer", "fit")


def main() -> None:
    columns = ("name", "milliseconds", "added", "mean_added", "percent_of_a", "percent_of_b")
    result = Result("trainer-overhead", columns, dry_run=DRY)
    makers = {
        name: (lambda name=name: Contender(["-m", "benchmarks.no_work", name])) for name in LOOPS
    }
    with contenders(makers, result.not_run) as loops:
        for loop in loops.values():
            loop.ask("turn", steps=STEPS // 10)
        turns = take_turns(
            {
                name: (lambda loop=loop: loop.ask("turn", steps=STEPS))
                for name, loop in loops.items()
            },
            2 if DRY else ROUNDS,
            result.not_run,
        )
    found = {name: [turn["median"] for turn in of_loop] for name, of_loop in turns.items()}
    means = {name: [turn["mean"] for turn in of_loop] for name, of_loop in turns.items()}
    steps = milliseconds_of_a_step()
    before: str | None = None
    for name, times in found.items():
        added = differences(times, found[before]) if before else None
        middle = statistics.median(added) if added else None
        mean = statistics.median(differences(means[name], means[before])) if before else None
        shares = {
            f"percent_of_{part}": 100 * middle / step if middle is not None else None
            for part, step in steps.items()
        }
        milliseconds = statistics.median(times)
        result.add(
            name=name,
            milliseconds=milliseconds,
            added=middle,
            mean_added=mean,
            **shares,
            rounds=times,
            mean_rounds=means[name],
        )
        before = name
    for bar, with_it, without in (("trainer", "trainer", "bare"), ("callbacks", "fit", "trainer")):
        if with_it in found and without in found:
            result.bar(bar, differences(found[with_it], found[without]))
    result.show()


def differences(times: list[float], others: list[float]) -> list[float]:
    """Round by round."""
    return [a - b for a, b in zip(times, others, strict=True)]


def milliseconds_of_a_step() -> dict[str, float]:
    """Of our own training in the latest table train-throughput, if there is one."""
    path = results_folder() / "train-throughput.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    tokens = {"a": 8 * 256, "b": 1024}
    speeds = {row["name"]: row["tokens_per_second"] for row in rows}
    return {
        part: 1000 * tokens[part] / speeds[f"({part}) lit-llm"]
        for part in tokens
        if f"({part}) lit-llm" in speeds
    }


if __name__ == "__main__":
    main()
