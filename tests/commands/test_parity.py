import json

import pytest

from lit_llm.commands import parity
from lit_llm.commands.parity import Row, compare, read_curve

TRUTH = [(5.0, 2.0), (4.0, 1.0)]
CURVES = {
    "single-x1-32-true": TRUTH,
    "ddp-x2-32-true": [(5.0, 2.0), (4.000008, 1.00005)],
    "tp-x2-32-true": [(5.0, 2.0), (4.00002, 1.0)],
    "single-x1-bf16-mixed": [(5.01, 2.0), (4.0, 1.02)],
    "fsdp-x2-bf16-mixed": [(5.02, 2.0), (3.99, 1.01)],
    "ddp-x2-bf16-mixed": [(5.0201, 2.0), (4.0, 1.0)],
    "single-x1-bf16-true": [(5.1, 2.0), (4.0, 1.0)],
}


def test_float32_is_held_to_absolute_losses_and_relative_norms():
    near = compare(Row("ddp", 2, "32-true"), CURVES)
    assert near.loss == pytest.approx(8e-6)
    assert near.grad_norm == pytest.approx(5e-5)
    assert near.within
    assert not compare(Row("tp", 2, "32-true"), CURVES).within  # 2e-5 nats off


def test_bfloat16_may_be_twice_as_far_as_one_process():
    near = compare(Row("fsdp", 2, "bf16-mixed"), CURVES)
    assert (near.loss, near.loss_bound) == (pytest.approx(0.02), pytest.approx(0.02))
    assert near.within
    assert near.grad_norm == pytest.approx(0.01)
    assert not compare(Row("ddp", 2, "bf16-mixed"), CURVES).within


def test_bf16_parameters_are_bounded_by_the_rounding_of_bf16_true():
    assert Row("fsdp", 2, "fsdp-bf16").reference == "bf16-true"


def test_a_curve_that_is_no_number_is_out():
    curves = {**CURVES, "ddp-x2-32-true": [(5.0, 2.0), (float("nan"), 1.0)]}
    assert not compare(Row("ddp", 2, "32-true"), curves).within


def test_a_run_that_logged_fewer_steps_is_an_error():
    curves = {**CURVES, "ddp-x2-32-true": TRUTH[:1]}
    with pytest.raises(ValueError, match="a run of 2 steps logged 1"):
        compare(Row("ddp", 2, "32-true"), curves)


def test_validation_rows_of_the_metrics_are_passed_over(tmp_path):
    text = "step,train/loss,train/grad_norm,val/loss\n1,5.5,2.5,\n1,,,5.4\n2,5.25,1.5,\n"
    (tmp_path / "metrics.csv").write_text(text)
    assert read_curve(tmp_path / "metrics.csv") == [(5.5, 2.5), (5.25, 1.5)]


@pytest.fixture
def trained(monkeypatch):
    """Rows whose curves are those above, without training."""
    monkeypatch.setattr(parity, "_train", lambda row, *_: CURVES[row.name])
    monkeypatch.setattr(parity, "ROWS", [Row(*name) for name in rows("ddp fsdp")])


def rows(trainers: str):
    return [("single", 1, "32-true"), *((name, 2, "bf16-mixed") for name in trainers.split())]


def test_a_row_out_of_bounds_makes_the_command_fail(cli, trained, tmp_path):
    out = tmp_path / "parity.json"
    finished = cli("parity", "--out", out)
    assert finished.code == 1
    found = {row["row"]: row["within"] for row in json.loads(out.read_text())["rows"]}
    expected = {"single-x1-32-true": True, "ddp-x2-bf16-mixed": False, "fsdp-x2-bf16-mixed": True}
    assert found == expected
    assert "OUT" in finished.out


def test_all_rows_within_bounds_is_success(cli, trained):
    finished = cli("parity", "--only", "fsdp")
    assert finished.code == 0
    assert "fsdp-x2-bf16-mixed" in finished.out
    assert "ddp" not in finished.out


def test_nothing_to_compare_is_an_error(cli, trained):
    finished = cli("parity", "--only", "deepspeed")
    assert finished.code == 2
    assert "no row is called 'deepspeed'" in finished.err


@pytest.mark.slow
def test_two_sharded_processes_are_on_a_par_with_one(cli, tmp_path):
    out = tmp_path / "parity.json"
    finished = cli("parity", "--only", "fsdp-x2-32-true", "--steps", "6", "--out", out)
    assert finished.code == 0, finished.err
    single, sharded = json.loads(out.read_text())["rows"]
    assert single["loss"] == 0
    assert sharded["loss"] <= 1e-5
