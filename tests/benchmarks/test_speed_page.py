"""The pages' numbers come from files of results, and from nowhere else."""

import json

import pytest

from benchmarks.result import read_bars
from benchmarks.speed_page import PAGES, SHOWN, filled, results, step_time

MACHINE = {"device": "a CPU", "hardware": {"cores": 2}, "torch": "2.13", "dry_run": False}
BAR = {"measure": "as in the file", "at_least": 1.6, "values": [1.7] * 5, "median": 1.7}
DECODE = {**MACHINE, "bars": {"batch-1-bf16-transformers": {**BAR, "holds": 5, "met": True}}}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_results_say(page):
    text = page.read_text(encoding="utf-8")
    assert filled(text, results()) == text, "python -m benchmarks.speed_page"


def test_a_measured_bar_is_shown_and_one_that_was_not_run_is_unmet():
    page = filled("a\n<!-- speed: cpu -->\nstale\n<!-- end -->\nb", {"decode": DECODE})
    assert page.startswith("a\n<!-- speed: cpu -->\n| table: bar |")
    assert page.endswith("\n<!-- end -->\nb")
    assert "stale" not in page
    bars = read_bars()["decode"]
    shown = bars["batch-1-bf16-transformers"]["measure"]
    missing = bars["batch-1-bf16-litgpt"]["measure"]
    assert f"| decode: batch-1-bf16-transformers | {shown} | >= 1.6 | 1.7 | 5 of 5 | yes |" in page
    assert f"| decode: batch-1-bf16-litgpt | {missing} | >= 1.6 | not measured | - | no |" in page
    total = sum(len(bars) for table, bars in read_bars().items() if not table.startswith("gpu-"))
    assert f"\n1 of {total} bars met. Measured on: a CPU, 2 cores, torch 2.13.\n" in page
    assert "gpu-" not in page


def test_a_gpus_bars_are_apart():
    page = filled("<!-- speed: gpu -->\n\n<!-- end -->", {"decode": DECODE})
    assert ">= 600,000 | not measured" in page
    assert "0 of 6 bars met. Not measured yet." in page


def test_the_short_table_shows_what_was_measured():
    page = filled("<!-- speed: shown -->\n\n<!-- end -->", {"decode": DECODE})
    assert "| one prompt, bf16, tokens/s: transformers' | 1.7 |" in page
    assert "int8" not in page
    assert all(name in read_bars()[table] for table, name in SHOWN)


def test_results_of_dry_runs_are_left_out(tmp_path):
    for name, dry in (("decode", True), ("load", False)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"dry_run": dry}))
    assert list(results(tmp_path)) == ["load"]


def test_the_floor_comes_first_and_then_the_parts_by_weight():
    rows = [
        {"name": "(a)", "floor_share": 0.5, "products_share": 0.6, "parts": {"x": 0.1, "y": 0.3}},
        {"name": "(b)", "floor_share": 0.7, "products_share": 0.8, "parts": {"y": 0.2}},
    ]
    lines = step_time({"step-time": {"rows": rows}}).splitlines()
    assert lines[0] == "| share of a step | (a) | (b) |"
    assert lines[2].endswith("| 50% | 70% |")
    assert lines[4:] == ["| y | 30.0% | 20.0% |", "| x | 10.0% | 0.0% |"]


def test_a_table_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="there are cpu, gpu, shown, step time"):
        filled("<!-- speed: tpu -->\n<!-- end -->", {})
