"""The clock of these tests is moved by hand: a batch takes 2 s, validation 100 s, a save 1000 s."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger

from lit_llm.callbacks import Checkpoint
from lit_llm.callbacks import throughput as module
from lit_llm.callbacks.throughput import Throughput, matmul_dtype
from lit_llm.model.config import GPTConfig
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


@pytest.fixture
def cpu_peak(monkeypatch, clock):
    """A CPU of 8 MFLOP/s; finding that out takes 500 s, and is noted with the time."""
    found = []

    def measure(dtype):
        found.append((clock.now, dtype))
        clock.now += 500
        return 8e6

    monkeypatch.setattr(module, "measured_cpu_flops", measure)
    return found


def test_the_peak_of_a_cpu_is_measured_once_outside_of_what_is_timed(fit, cpu_peak):
    rows = Rows()
    _, model = fit([Throughput()], logger=rows, max_steps=6, limit_val_batches=0)
    assert cpu_peak == [(7 + 2 * 2, torch.float32)]  # at step 2, the first log step
    by_step = rows.clock_rows()
    assert [row["seconds"] for row in by_step.values()] == [4, 8, 12]
    flops = flops_per_token(model.gpt.config, 17) * TOKENS / 2
    assert [row["speed/mfu"] for row in by_step.values()] == pytest.approx([flops / 8e6] * 3)


def test_a_run_without_a_log_step_measures_no_cpu(fit, cpu_peak, capsys):
    fit([Throughput()], max_steps=5, log_every_n_steps=6, limit_val_batches=0)
    assert cpu_peak == []
    assert "MFU" not in capsys.readouterr().out


def test_a_cpu_is_measured_in_the_precision_of_the_run(fit, cpu_peak, capsys):
    fit([Throughput()], max_steps=2, limit_val_batches=0, precision="bf16-mixed")
    assert [dtype for _, dtype in cpu_peak] == [torch.bfloat16]
    line = capsys.readouterr().out.splitlines()[0]
    assert line == "this CPU's matmul peak: 8e-06 TFLOP/s in bfloat16 (measured)"


@pytest.mark.parametrize(
    ("precision", "param_dtype", "dtype"),
    [
        ("32-true", None, torch.float32),
        ("bf16-true", None, torch.bfloat16),
        ("64-true", None, torch.float64),
        ("32-true", torch.bfloat16, torch.bfloat16),  # FSDP2 casts what it gathers
    ],
)
def test_matmuls_compute_in_what_the_precision_or_the_strategy_says(precision, param_dtype, dtype):
    strategy = SimpleNamespace(param_dtype=param_dtype) if param_dtype else object()
    assert matmul_dtype(SimpleNamespace(precision=precision, strategy=strategy)) == dtype


def test_peak_memory_is_logged_in_units_of_1e9_bytes(fit, clock, monkeypatch):
    monkeypatch.setattr(module, "peak_memory", lambda device: 1_250_000_000)
    rows = Rows()
    fit([Throughput()], logger=rows, max_steps=3)
    by_step = rows.clock_rows()
    assert by_step[2]["speed/peak_memory_gb"] == 1.25
    assert "speed/peak_memory_gb" not in by_step[3]  # validation, no log step


@pytest.fixture
def by_hand(monkeypatch, clock):
    """Steps of 2 s on a GPU that is not there; gives back what was logged and waited for."""
    waits, lines, rows = [], [], Rows()
    monkeypatch.setattr(module, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(module, "peak_memory", lambda device: 41_200_000_000)

    def run(steps: int, world_size: int = 1) -> SimpleNamespace:
        trainer = SimpleNamespace(
            global_step=0,
            log_every_n_steps=4,
            world_size=world_size,
            loggers=[rows],
            datamodule=SimpleNamespace(nominal_tokens_per_step=500_000, seq_len=1000),
        )
        config = GPTConfig(n_layer=2, d_model=64)
        model = SimpleNamespace(
            device=torch.device("cuda"), gpt=SimpleNamespace(config=config), print=lines.append
        )
        monkeypatch.setattr(
            torch.accelerator, "synchronize", lambda device: waits.append(trainer.global_step)
        )
        throughput = Throughput()
        throughput.on_train_start(trainer, model)
        for step in range(1, steps + 1):
            throughput.on_train_batch_start(trainer, model, None, 0)
            clock.now += 2
            trainer.global_step = step
            throughput.on_train_batch_end(trainer, model, None, None, 0)
        throughput.on_train_end(trainer, model)
        throughput.on_fit_end(trainer, model)
        flops = flops_per_token(config, 1000)
        return SimpleNamespace(waits=waits, lines=lines, rows=rows.clock_rows(), flops=flops)

    return run


def test_the_device_is_waited_for_at_log_steps_and_the_ends_only(by_hand):
    assert by_hand(steps=10).waits == [1, 4, 8, 10]


def test_tokens_count_once_and_operations_per_device_however_the_devices_share_them(by_hand):
    run = by_hand(
        steps=4, world_size=6
    )  # such as 3 that see different data x 2 that split matrices
    assert run.rows[4]["tokens"] == 4 * 500_000
    assert run.rows[4]["speed/tokens_per_second"] == 250_000
    assert run.rows[4]["speed/tflops"] == pytest.approx(run.flops * 250_000 / 6 / 1e12)
    assert run.rows[4]["speed/mfu"] == pytest.approx(run.flops * 250_000 / 6 / 312e12)


def test_one_line_sums_the_session_up(by_hand):
    run = by_hand(steps=1450, world_size=2)
    mfu = run.flops * 250_000 / 2 / 312e12
    assert run.lines == [
        "trained 1,450 steps, 725M tokens in 48:20: 250k tok/s on 2 devices, "
        f"MFU {mfu:.1%} of the device's 312 TFLOP/s, peak memory 41.2 GB"
    ]


def test_the_last_line_leaves_the_first_step_out_of_its_speed(
    fit, cpu_peak, clock, capsys, tiny_lm, monkeypatch
):
    step = tiny_lm.training_step

    def compiles_at_first(self, batch, batch_idx):
        clock.now += 60 * (batch_idx == 0)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(tiny_lm, "training_step", compiles_at_first)
    fit([Throughput()], max_steps=5, limit_val_batches=0)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("trained 5 steps, 255 tokens in 1:10: 25.5 tok/s, MFU ")
    assert " of this CPU's measured 8e-06 TFLOP/s, peak memory " in line


def test_the_last_line_of_a_resumed_run_has_both_totals(fit, cpu_peak, capsys, tmp_path):
    fit([Throughput(), Checkpoint(every_n_steps=3)], max_steps=4, limit_val_batches=0)
    at_3 = str(tmp_path / "run" / "step-00000003")
    capsys.readouterr()
    fit([Throughput()], max_steps=23, limit_val_batches=0, ckpt_path=at_3)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(
        "trained 20 steps, 1.02k tokens in 0:40 (23 steps, 1.17k tokens in 0:46 since step 0): "
    )


def test_a_run_that_has_nothing_left_to_do_claims_nothing(fit, cpu_peak, capsys, tmp_path):
    fit([Throughput(), Checkpoint(every_n_steps=3)], max_steps=3, limit_val_batches=0)
    capsys.readouterr()
    fit([Throughput()], max_steps=3, ckpt_path=str(tmp_path / "run" / "step-00000003"))
    assert "trained" not in capsys.readouterr().out
