"""A contender whose steps do next to nothing: what is left is the loop around them.

    python -m benchmarks.no_work bare      a loop of plain PyTorch: batch, loss, backward, step
    python -m benchmarks.no_work trainer   Lightning's Trainer with our module, and no callback
    python -m benchmarks.no_work fit       cli.py fit with all that it turns on by default

All three have the same loader, network, optimizer, clipping and schedule. `turn(steps)` answers
with the median and the mean of the milliseconds of as many steps: the mean has what is done on some
steps only.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from itertools import pairwise
from time import perf_counter
from typing import Any

from benchmarks.turns import Turns

FILES = ("configs/optim/adamw.yaml", "configs/trainer/cpu.yaml", "benchmarks/no-work.yaml")


class Steps:
    """Counts the steps of a turn, and their times."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._times: list[float] = []
        self._left = 0

    def begin(self) -> bool:
        """Say that all is ready, and wait for the first turn; False if there is none."""
        self._turns.answer("ready")
        return self._wait()

    def step(self) -> bool:
        """A step is over; False if there is nothing more to do."""
        self._times.append(perf_counter())
        if len(self._times) <= self._left:
            return True
        times = [b - a for a, b in pairwise(self._times)]
        milliseconds = {"median": statistics.median(times), "mean": statistics.fmean(times)}
        self._turns.answer({name: 1000 * value for name, value in milliseconds.items()})
        return self._wait()

    def _wait(self) -> bool:
        request = self._turns.next()
        self._left, self._times = (request[1]["steps"] if request else 0), [perf_counter()]
        return request is not None


steps: list[Steps] = []  # the one of this process, for the callback


def bare() -> None:
    """The loop that a user would write."""
    from torch.nn.utils import clip_grad_norm_
    from torch.optim import AdamW
    from torch.optim.lr_scheduler import LambdaLR

    from benchmarks.no_work_parts import NoWork, data, network
    from lit_llm.model.gpt import GPT

    module, objective = GPT(network()), NoWork()
    optimizer = AdamW(module.parameters(), lr=1e-9, fused=True)
    schedule = LambdaLR(optimizer, lambda step: 1.0)
    going = steps[0].begin()
    for batch in data().train_dataloader():
        optimizer.zero_grad(set_to_none=True)
        objective(module, batch).loss.backward()
        clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        going = going and steps[0].step()
        if not going:
            return


def trainer() -> None:
    """Lightning's Trainer and our module, as `cli.py fit` puts them together."""
    import lightning as L

    from benchmarks.no_work_parts import Timer, data, lit_llm
    from lit_llm.commands.quiet import quiet_libraries

    quiet_libraries()
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False}
    run = L.Trainer(
        accelerator="cpu",
        max_steps=10**9,
        max_epochs=-1,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        callbacks=[Timer()],
        log_every_n_steps=10**9,
        limit_val_batches=0,
        **options,
    )
    run.fit(lit_llm(), datamodule=data())


def fit() -> None:
    """The command line."""
    from lit_llm.cli import main

    files = [part for file in FILES for part in ("-c", file)]
    with tempfile.TemporaryDirectory() as folder:
        main(
            [
                *("fit", *files, f"--runs_dir={folder}", "--run=measured"),
                "--trainer.callbacks+=benchmarks.no_work_parts.Timer",
            ]
        )


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as the command line does
    from benchmarks import no_work  # this file under the name that the callback knows

    no_work.steps.append(no_work.Steps(Turns()))
    getattr(no_work, sys.argv[1])()
