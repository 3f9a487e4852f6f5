"""What the default callbacks and loggers add to a training step, beside the same run without."""

from itertools import pairwise
from statistics import median
from time import thread_time

import lightning as L
import pytest
import torch

from lit_llm.callbacks import (
    Checkpoint,
    CSVLog,
    NanGuard,
    Progress,
    RunReport,
    Samples,
    Signals,
    SpikeGuard,
    TensorBoardLog,
    Throughput,
    Watchdog,
)

LIMIT = 0.3  # ms


class Timer(L.Callback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_) -> None:
        self.times.append(thread_time())  # other processes do not count, as they would in seconds


@pytest.fixture
def step_milliseconds(fit, tiny_lm):
    """Median milliseconds of the steps of a run of a model that does nothing."""

    class NoWork(tiny_lm):
        """One weight: what is left of a step is the Trainer and the callbacks."""

        def training_step(self, batch, batch_idx):
            self.train_loss = 2 * self.gpt.norm.weight.sum()
            return self.train_loss

        def configure_optimizers(self):
            return torch.optim.AdamW([self.gpt.norm.weight], lr=1e-9, fused=True)

    def milliseconds(callbacks, logger, steps) -> float:
        timer = Timer()
        options = {"max_steps": steps, "log_every_n_steps": 10, "limit_val_batches": 0}
        fit([timer, *callbacks], logger=logger, model=NoWork(), **options)
        return 1000 * median(after - before for before, after in pairwise(timer.times))

    return milliseconds


def ours(run):
    """Everything that a recipe turns on."""
    watch = [NanGuard(), SpikeGuard(), Signals(), Watchdog()]
    write = [Throughput(), Progress(), Samples(), RunReport(), Checkpoint()]
    return [*watch, *write], [CSVLog(run), TensorBoardLog(run)]


def test_the_default_callbacks_cost_little(step_milliseconds, tmp_path, record_property):
    plain = step_milliseconds([], False, 300)
    added = step_milliseconds(*ours(str(tmp_path / "run")), 300) - plain
    record_property("added_ms", added)
    assert added < 5 * LIMIT  # on cores that other tests share


@pytest.mark.slow
def test_the_default_callbacks_cost_at_most_three_tenths_of_a_millisecond(
    step_milliseconds, tmp_path, record_property
):
    added = []
    for pair in range(5):
        plain = step_milliseconds([], False, 2000)
        added.append(step_milliseconds(*ours(str(tmp_path / str(pair))), 2000) - plain)
    record_property("added_ms", added)
    assert median(added) <= LIMIT, added
