"""The clock of these tests is moved by hand: a batch takes 2 s, validation 100 s, a save 1000 s."""

import pytest
from lightning.pytorch.loggers.logger import DummyLogger

from lit_llm.callbacks import Checkpoint
from lit_llm.callbacks import throughput as module
from lit_llm.callbacks.throughput import Throughput
from lit_llm.model.size import flops_per_token

TOKENS = 51  # of a step of the tiny run


class Rows(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append((step, metrics))

    def clock_rows(self) -> dict[int, dict]:
        return {step: metrics for step, metrics in self.rows if "seconds" in metrics}


@pytest.fixture
def clock(monkeypatch, tiny_lm):
    class Clock:
        now = 7.0

    def slow(method, seconds):
        def slowed(*args, **kwargs):
            Clock.now += seconds
            return method(*args, **kwargs)

        return slowed

    monkeypatch.setattr(module, "perf_counter", lambda: Clock.now)
    monkeypatch.setattr(tiny_lm, "training_step", slow(tiny_lm.training_step, 2))
    monkeypatch.setattr(tiny_lm, "validation_step", slow(tiny_lm.validation_step, 100))
    monkeypatch.setattr(tiny_lm, "on_save_checkpoint", slow(lambda *_: None, 1000))
    return Clock


def test_speed_counts_training_and_neither_validation_nor_checkpoints(fit, clock):
    rows = Rows()
    fit([Throughput(), Checkpoint(every_n_steps=1)], logger=rows, max_steps=6)
    assert clock.now > 6000  # the saves did take their time
    by_step = rows.clock_rows()
    assert list(by_step) == [2, 3, 4, 6]  # log steps, and validation at 3 and 6
    assert [row["tokens"] for row in by_step.values()] == [102, 153, 204, 306]
    assert [row["seconds"] for row in by_step.values()] == [4, 6, 8, 12]
    speeds = {row["speed/tokens_per_second"] for _, row in rows.rows if "speed/tflops" in row}
    assert speeds == {TOKENS / 2}


def test_a_pause_ends_with_the_next_batch(fit, clock):
    rows = Rows()
    fit([Throughput()], logger=rows, max_steps=6)  # validation at 3 and 6 takes 200 s each
    assert clock.now == 7 + 6 * 2 + 2 * 200
    assert {step: row["seconds"] for step, row in rows.clock_rows().items()}[6] == 12


def test_micro_batches_of_a_step_count_together(fit, clock):
    rows = Rows()
    fit([Throughput()], logger=rows, max_steps=4, accumulate_grad_batches=3, limit_val_batches=0)
    by_step = rows.clock_rows()
    assert {step: row["seconds"] for step, row in by_step.items()} == {2: 12, 4: 24}
    assert by_step[4]["speed/tokens_per_second"] == TOKENS / 6
    assert by_step[4]["tokens"] == 204


def test_the_first_step_of_a_session_counts_in_no_speed(fit, clock, tiny_lm, monkeypatch):
    step = tiny_lm.training_step

    def compiles_at_first(self, batch, batch_idx):
        clock.now += 60 * (batch_idx == 0)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(tiny_lm, "training_step", compiles_at_first)
    rows = Rows()
    fit([Throughput()], logger=rows, max_steps=2, limit_val_batches=0)
    row = rows.clock_rows()[2]
    assert row["seconds"] == 64
    assert row["speed/tokens_per_second"] == TOKENS / 2


def test_a_resumed_run_goes_on_counting_seconds(fit, clock, tmp_path):
    fit([Throughput(), Checkpoint(every_n_steps=3)], max_steps=4, limit_val_batches=0)
    rows = Rows()
    fit(
        [Throughput()],
        logger=rows,
        max_steps=6,
        limit_val_batches=0,
        ckpt_path=str(tmp_path / "run" / "step-00000003"),
    )
    assert rows.clock_rows()[6]["seconds"] == 12
    assert rows.clock_rows()[6]["tokens"] == 306


def test_mfu_is_the_share_of_the_peak_of_a_known_device(fit, clock, monkeypatch):
    monkeypatch.setattr(module, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    rows = Rows()
    _, model = fit([Throughput()], logger=rows, max_steps=2, limit_val_batches=0)
    flops = flops_per_token(model.gpt.config, 17) * TOKENS / 2
    assert rows.clock_rows()[2]["speed/mfu"] == pytest.approx(flops / 312e12)
    assert rows.clock_rows()[2]["speed/tflops"] == pytest.approx(flops / 1e12)


def test_a_cpu_gets_no_mfu(fit):
    rows = Rows()
    fit([Throughput()], logger=rows, max_steps=2)
    assert "speed/tflops" in rows.clock_rows()[2]
    assert not any("speed/mfu" in row for _, row in rows.rows)
