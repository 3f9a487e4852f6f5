"""The callback that makes a training run a contender; `benchmarks.fit_in_turns` starts one."""

from __future__ import annotations

from time import perf_counter

import lightning as L

from benchmarks import fit_in_turns
from benchmarks.each_step import EachStep
from benchmarks.peers.train import peak_bytes


class InTurns(EachStep):
    """Trains as many steps as it is asked to, answers with their seconds, and waits."""

    def __init__(self) -> None:
        self._left = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._turns = fit_in_turns.turns[0]
        self._turns.answer("ready")
        self._wait(trainer)

    def on_step(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._left -= 1
        if self._left <= 0:
            seconds = perf_counter() - self._began
            self._turns.answer({"seconds": seconds, "peak_bytes": peak_bytes()})
            self._wait(trainer)

    def _wait(self, trainer: L.Trainer) -> None:
        request = self._turns.next()
        if request is None:
            trainer.should_stop = True
            return
        self._left = request[1]["steps"]
        self._began = perf_counter()
