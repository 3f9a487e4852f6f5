import gzip
import json

import pytest
import torch

from lit_llm.callbacks.profile import Profile, as_text
from lit_llm.callbacks.shares import Share


def test_a_run_leaves_both_tables_and_a_time_line(fit, tmp_path, capsys):
    fit([Profile(wait=1, warmup=1, steps=2)], max_steps=5, limit_val_batches=0)
    text = (tmp_path / "run/profile.txt").read_text()
    assert {"matrix products", "attention", "norms", "optimizer", "loss"} <= {
        line[:44].strip() for line in text.splitlines()
    }
    # 7 matrices and the head, each three times a step
    (line,) = (line for line in text.splitlines() if line.startswith("aten::mm "))
    assert line.split()[-1] == "24"
    with gzip.open(tmp_path / "run/profile.json.gz", "rt") as file:
        names = {event["name"] for event in json.load(file)["traceEvents"] if "name" in event}
    assert {"ProfilerStep#2", "ProfilerStep#3", "aten::mm"} <= names
    assert not names & {"ProfilerStep#1", "ProfilerStep#4"}
    assert "where the time goes" in capsys.readouterr().out


def test_micro_batches_of_a_step_are_recorded_together(fit, tmp_path):
    options = {"accumulate_grad_batches": 2, "limit_val_batches": 0}
    fit([Profile(wait=0, warmup=1, steps=1)], max_steps=3, **options)
    text = (tmp_path / "run/profile.txt").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("aten::mm "))
    assert line.split()[-1] == "48"


def test_training_is_the_same_with_a_profile(fit, tiny_lm):
    _, plain = fit(max_steps=4)
    _, profiled = fit([Profile(wait=0, warmup=1, steps=1)], max_steps=4)
    for one, other in zip(plain.parameters(), profiled.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_ends_early_closes_the_profiler(fit, tmp_path):
    fit([Profile(wait=9, warmup=1, steps=1)], max_steps=2)
    assert not (tmp_path / "run/profile.txt").exists()
    with torch.profiler.profile():  # a second profiler would be refused beside one that is open
        pass


def test_shares_are_of_the_whole_and_times_of_a_step():
    text = as_text([Share("norms", 0.003, 0), Share("rest", 0.001, 0)], [Share("x", 0.002, 6)], 2)
    rows = [line.split() for line in text.splitlines()]
    assert rows[1] == ["norms", "75.0%", "1.500"]
    assert rows[2] == ["rest", "25.0%", "0.500"]
    assert rows[3] == ["all", "100.0%", "2.000"]
    assert rows[-1] == ["x", "50.0%", "1.000", "3"]


@pytest.mark.parametrize("numbers", [{"steps": 0}, {"wait": -1}, {"warmup": -1}])
def test_a_profile_of_nothing_is_refused(numbers):
    with pytest.raises(ValueError, match="records nothing: give steps of 1 or more"):
        Profile(**numbers)
