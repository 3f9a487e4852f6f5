import base64
import json
import re
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest

from lit_llm.callbacks import CSVLog, RunReport, Samples, Throughput, write_report
from lit_llm.callbacks import run_report as module
from lit_llm.callbacks.curves import ACCENT, INK, series, smooth

METRICS = """step,tokens,seconds,speed/tokens_per_second,speed/mfu,speed/peak_memory_gb,train/loss,lr/matrix,val/loss
10,5100,2,2550,0.31,1.25,3.5,0.001,
20,10200,4,2550,0.25,1.5,2.5,0.002,
20,10200,4,,,,,,2.75
30,15300,6,2550,0.125,1.375,nan,0.001,
30,15300,6,,,,,,2.875
"""  # noqa: E501
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "quickstart" / "pretrain"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text(METRICS)
    return run


@pytest.fixture
def no_picture(monkeypatch):
    """Drawing takes a second; most of these tests look at the text."""
    monkeypatch.setattr(module, "draw", lambda rows: b"picture")


def share_of(color: str, png) -> float:
    picture = matplotlib.image.imread(png)[..., :3]
    wanted = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return float((np.abs(picture - wanted).max(-1) < 0.02).mean())


def test_the_report_holds_the_curves_and_the_first_numbers(run):
    html = write_report(run).read_text()
    embedded = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    assert embedded is not None
    png = base64.b64decode(embedded[1])
    assert png == (run / "report.png").read_bytes()
    assert share_of(ACCENT, BytesIO(png)) > 0.001  # training
    assert share_of(INK, BytesIO(png)) > 0.001  # validation, and titles
    assert "<b>2.750</b>" in html
    assert "best validation loss, step 20" in html
    assert "<b>15.3k</b>" in html  # tokens
    assert "<b>0:06</b>" in html
    assert '<b>25.0%</b><span class="unit">of the device' in html
    assert "<b>1.5 GB</b>" in html
    assert "quickstart/pretrain" in html


def test_the_report_needs_no_network(run, no_picture):
    html = write_report(run).read_text()
    without_picture = re.sub(r"base64,[^\"]+", "", html)
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<script", without_picture)


def test_text_from_data_and_configuration_is_escaped(run, no_picture):
    (run / "config.yaml").write_text(f"name: {HOSTILE}\n")
    (run / "data_card.json").write_text(f'{{"{HOSTILE}": ["{HOSTILE}", {{"a": "{HOSTILE}"}}]}}')
    (run / "environment.json").write_text(f'{{"device": "{HOSTILE}"}}')
    (run / "samples.jsonl").write_text(f'{{"step": 5, "prompt": "{HOSTILE}", "text": "&lt;"}}\n')
    html = write_report(run).read_text()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 6
    assert "&amp;lt;" in html


def test_what_was_evaluated_is_shown(run, no_picture):
    assert "<h2>Evaluation</h2>" not in write_report(run).read_text()
    metrics = {"bits_per_byte": {"value": 2.125, "stderr": None, "count": 3}}
    results = [{"task": "bits_per_byte:my.txt", "metrics": metrics}]
    entry = {"began": "2026-01-02", "checkpoint": "step-00000030", "results": results}
    (run / "evaluation.json").write_text(json.dumps([entry]))
    html = write_report(run).read_text()
    assert "<h2>Evaluation</h2>" in html
    assert "<td>bits_per_byte:my.txt</td><td>bits_per_byte</td><td>2.1250</td>" in html


def test_the_newest_samples_are_shown_first(run, no_picture):
    (run / "samples.jsonl").write_text(
        '{"step": 5, "prompt": "old", "text": "a"}\n{"step": 9, "prompt": "new", "text": "b"}\n'
    )
    html = write_report(run).read_text()
    assert html.index("step 9; prompts in grey") < html.index("<summary>step 5</summary>")


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no metrics\.csv with rows"):
        write_report(tmp_path)


def test_values_that_are_missing_or_not_finite_are_no_points():
    rows = [{"step": "1", "a": "2.5"}, {"step": "2", "a": ""}, {"step": "3", "a": "nan"}]
    assert series(rows, "a") == ([1.0], [2.5])
    assert series(rows, "b") == ([], [])


def test_smoothing_does_not_shift_a_straight_line():
    line = [float(i) for i in range(200)]
    assert smooth(line) == pytest.approx(line)
    assert smooth([1.0, -1.0] * 100)[100] == pytest.approx(-1 / 11)  # 11 values, 6 of them -1


def test_a_finished_run_leaves_a_whole_folder(fit, tmp_path, no_picture):
    run = tmp_path / "run"
    fit([Throughput(), Samples(), RunReport()], logger=CSVLog(str(run)))
    assert sorted(path.name for path in run.iterdir()) == [
        "data_card.json",
        "environment.json",
        "metrics.csv",
        "report.html",
        "report.png",
        "samples.jsonl",
        "sessions.jsonl",
    ]
    html = (run / "report.html").read_text()
    assert "1,234,567" in html  # documents of the data card
    assert "&lt;village&gt;" in html
    assert "32-true" in html


def test_every_session_of_a_run_is_on_record(fit, tmp_path, no_picture):
    run = tmp_path / "run"
    fit([Throughput(), RunReport(["python", "cli.py", "fit"])], logger=CSVLog(str(run)))
    fit([Throughput(), RunReport(["again"])], logger=CSVLog(str(run)))
    sessions = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    assert [session["command_line"] for session in sessions] == [
        ["python", "cli.py", "fit"],
        ["again"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", s["began"]) for s in sessions)
    latest = json.loads((run / "environment.json").read_text())
    assert latest.items() <= sessions[-1].items()
    assert latest["data"] == "0123abcd"  # the fingerprint of the data


def test_a_run_that_breaks_off_is_reported_too(fit, tmp_path, tiny_lm, monkeypatch, no_picture):
    def fail(self):
        raise RuntimeError("no more")

    monkeypatch.setattr(tiny_lm, "on_validation_epoch_end", fail)
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="no more"):
        fit([Throughput(), RunReport()], logger=CSVLog(str(run)))
    assert (run / "report.html").exists()


def test_a_report_that_fails_does_not_fail_the_run(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "draw", lambda rows: 1 / 0)
    with pytest.warns(UserWarning, match="no report: ZeroDivisionError"):
        trainer, _ = fit([Throughput(), RunReport()], logger=CSVLog(str(tmp_path / "run")))
    assert trainer.global_step == 6
