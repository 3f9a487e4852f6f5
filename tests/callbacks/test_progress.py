import io
import re
from itertools import pairwise

import pytest
from rich.console import Console

from lit_llm.callbacks import Progress, Throughput
from lit_llm.callbacks import progress as module


@pytest.fixture
def pipe():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


def test_a_log_file_gets_a_plain_line_at_every_tenth(fit, pipe):
    bar = Progress(name="pretrain", console=pipe)
    fit([bar, Throughput()], max_steps=20, log_every_n_steps=1, limit_val_batches=0)
    measured, *lines, totals = pipe.file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{n}/20" for n in range(2, 21, 2)]
    assert measured.startswith("this CPU's matmul peak: ")
    assert totals.startswith("trained 20 steps, 1.02k tokens in 0:0")
    assert re.fullmatch(
        r"pretrain  12/20  loss \d\.\d{3}  [\d.]+k? tok/s  lr 3\.0e-03  \d:\d\d left", lines[5]
    )


def test_a_slow_run_gets_a_plain_line_every_30_seconds(fit, pipe, tiny_lm, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    train = tiny_lm.training_step

    def slow(self, batch, batch_idx):
        now[0] += 11
        return train(self, batch, batch_idx)

    monkeypatch.setattr(tiny_lm, "training_step", slow)
    fit([Progress(console=pipe)], max_steps=50, limit_val_batches=0)
    printed = [line.split()[1] for line in pipe.file.getvalue().splitlines()]
    assert printed[:5] == ["3/50", "5/50", "8/50", "10/50", "13/50"]  # 5 and 10 are tenths


def test_the_printed_loss_is_that_of_the_printed_step(fit, pipe):
    _, model = fit([Progress(console=pipe)], max_steps=6, log_every_n_steps=6, limit_val_batches=0)
    last = pipe.file.getvalue().splitlines()[-1]
    assert f"6/6  loss {model.train_loss.item():.3f}" in last


def test_a_terminal_shows_one_moving_line(fit, terminal):
    bar = Progress(name="pretrain", console=terminal)
    fit([bar, Throughput()], max_steps=6)
    drawn = terminal.file.getvalue()
    assert "6/6" in drawn
    last = drawn.split("pretrain")[-1]
    assert "trained 6 steps, 306 tokens in 0:0" in last.splitlines()[-1]
    assert re.search(r"6/6 loss \d\.\d{3}  val \d\.\d{3}  [\d.]+k? tok/s  lr 3\.0e-03", last)
    assert drawn.count("\n") <= 3


def test_a_terminal_is_drawn_at_most_five_times_a_second(fit, terminal, monkeypatch):
    now = [100.0]

    def tick():
        now[0] += 0.03
        return now[0]

    monkeypatch.setattr(module, "monotonic", tick)
    draws = []
    monkeypatch.setattr(module.Bar, "refresh", lambda self: draws.append(now[0]))
    fit([Progress(console=terminal)], max_steps=60, limit_val_batches=0, log_every_n_steps=1)
    inner = draws[2:-2]  # without opening and closing
    assert len(inner) > 3
    gaps = [after - before for before, after in pairwise(inner)]
    assert min(gaps) > 0.19


def test_metrics_are_read_after_log_steps_only(fit, pipe, monkeypatch):
    reads = []
    read = Progress._read

    def counted(self, trainer):
        reads.append(trainer.global_step)
        read(self, trainer)

    monkeypatch.setattr(Progress, "_read", counted)
    fit([Progress(console=pipe)], max_steps=10, log_every_n_steps=4, limit_val_batches=0)
    assert reads == [4, 8, 10]  # and at the end


def test_micro_batches_are_not_steps(fit, pipe):
    fit([Progress(console=pipe)], max_steps=4, accumulate_grad_batches=3, limit_val_batches=0)
    printed = [line.split()[1] for line in pipe.file.getvalue().splitlines()]
    assert printed == ["1/4", "2/4", "3/4", "4/4"]


def test_predict_counts_batches(fit, tiny_data, terminal):
    trainer, model = fit([Progress(console=terminal)], max_steps=1, limit_val_batches=0)
    terminal.file.truncate(0)
    trainer.predict(model, datamodule=tiny_data())
    assert "predict" in terminal.file.getvalue()
    assert "2/2" in terminal.file.getvalue()


def test_validate_prints_plain_lines_into_a_log_file(fit, tiny_data, pipe):
    trainer, model = fit([Progress(console=pipe)], max_steps=1, limit_val_batches=0)
    trainer.limit_val_batches = 1.0
    trainer.validate(model, datamodule=tiny_data(), verbose=False)
    assert pipe.file.getvalue().splitlines()[-1] == "validate  2/2"


def test_text_is_printed_as_it_is(pipe):
    Progress(console=pipe).print("[bold]no markup[/bold]")
    assert pipe.file.getvalue() == "[bold]no markup[/bold]\n"
