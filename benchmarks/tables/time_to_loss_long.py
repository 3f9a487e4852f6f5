"""Seconds until 1.50 nats per character of Shakespeare's last tenth, on a CPU.

`cli.py fit` with the recipe shakespeare-char/long.yaml, a whole process from its start to its end
with all its validations and checkpoints, scored as in benchmarks/tables/time_to_loss.py. nanoGPT
comes to 1.4697 on a GPU with ten times the tokens and 2.6 times the parameters; on a CPU its
README stops at 1.88, so nothing runs beside ours.

    SHAKESPEARE=tinyshakespeare.txt python -m benchmarks.tables.time_to_loss_long
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.result import Result
from benchmarks.rounds import NotRun
from benchmarks.tables.time_to_loss import DRY, SHORT, find_text, prepare, run_ours

GOAL = 1.5
RECIPE = "configs/recipes/shakespeare-char/long.yaml"


def main() -> None:
    columns = ("name", "seconds", "nats_per_character", "reached")
    result = Result("time-to-loss-long", columns, dry_run=DRY)
    with tempfile.TemporaryDirectory() as folder:
        try:
            text = find_text()
            prepare(text, Path(folder), RECIPE)
            run = run_ours(text, Path(folder), "run", *SHORT, recipe=RECIPE)
        except NotRun as reason:
            result.not_run("lit-llm", str(reason))
        else:
            reached = run.nats <= GOAL
            result.settings(text=text.name)
            result.add(
                name="lit-llm", seconds=run.seconds, nats_per_character=run.nats, reached=reached
            )
    result.show()


if __name__ == "__main__":
    main()
