"""The tables about data, start-up and what surrounds a step, at tiny sizes."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import process_tree
from benchmarks.process_tree import cost_of
from benchmarks.result import ROOT
from benchmarks.rounds import NotRun
from benchmarks.tables import soak, start_up, tokenize_and_pack


def dry_run(table, folder, **environment):
    """Run a table as `make bench` does; its result."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.tables.{table}"],
        cwd=ROOT,
        env={**os.environ, "BENCH_DRY_RUN": "1", "OUT": str(folder), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / f"{table.replace('_', '-')}.json").read_text()), done.stdout


def test_the_table_load_measures_with_and_without_a_worker(tmp_path):
    result, _ = dry_run("load", tmp_path)
    assert [row["name"] for row in result["rows"]] == ["no-worker", "one-worker"]
    for name, bar in result["bars"].items():
        row = next(row for row in result["rows"] if row["name"] == name)
        assert bar["median"] == pytest.approx(row["batches_per_second"] * 32 * 1024 / 600_000)


@pytest.mark.slow
def test_the_table_trainer_overhead_runs_through(tmp_path):
    result, _ = dry_run("trainer_overhead", tmp_path)
    assert [row["name"] for row in result["rows"]] == ["bare", "trainer", "fit"]
    assert set(result["bars"]) == {"trainer", "callbacks"}


@pytest.mark.slow
def test_a_missing_peer_is_printed_as_not_run_and_has_no_bar(tmp_path):
    result, out = dry_run("tokenize_and_pack", tmp_path, PEERS=str(tmp_path / "nothing"))
    assert [row["name"] for row in result["rows"]] == ["lit-llm", "datasets"]
    assert "not run: litgpt: " in out
    assert set(result["bars"]) == {"datasets"}


@pytest.mark.slow
def test_the_table_prepare_long_runs_through(tmp_path):
    result, _ = dry_run("prepare_long", tmp_path)
    assert len(result["rows"]) == 2
    assert set(result["bars"]) == {"memory"}


def test_the_table_start_up_compares_with_the_import(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(start_up, "seconds_of", lambda *words, **_: {"-c": 2.0}.get(words[0], 2.5))
    monkeypatch.setattr(start_up, "first_step", lambda recipe, folder: 3.5)
    start_up.main()
    bars = json.loads((tmp_path / "start-up.json").read_text())["bars"]
    assert bars["fit-help"]["median"] == 1.25
    assert bars["first-step"]["median"] == 1.5
    assert not bars["help"]["met"]


def test_a_command_that_fails_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(start_up, "IMPORT", "raise ValueError('no such thing')")
    with pytest.raises(NotRun, match="no such thing"):
        start_up.seconds_of("-c", start_up.IMPORT)


def test_the_cost_of_a_command_is_its_time_and_the_memory_of_its_children(monkeypatch):
    monkeypatch.setattr(process_tree, "EVERY_SECONDS", 0.05)
    child = "import time; held = bytearray(50_000_000); time.sleep(0.5)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    cost = cost_of([sys.executable, "-c", code])
    assert cost.seconds >= 0.5
    assert 50e6 < cost.peak_bytes < 150e6
    with pytest.raises(NotRun, match="exploded"):
        cost_of([sys.executable, "-c", "raise RuntimeError('exploded')"])


def test_the_parts_of_a_soak_are_medians():
    readings = [[step, 0.1 * step + (step > 15), 1e6 * step, 7 + step % 2] for step in range(20)]
    parts = soak.split(readings)
    assert [len(part) for part in parts] == [2] * 10
    last = soak.part(readings[10:15])
    assert last["steps"] == 14
    assert last["resident_mb"] == 12
    assert last["open_files"] == 8
    assert last["step_milliseconds"] == pytest.approx(100)


def test_everybody_gets_the_same_texts_and_tokenizer(tmp_path):
    texts, tokenizer = str(tmp_path / "texts"), str(tmp_path / "tokenizer")
    for command in tokenize_and_pack.commands(tmp_path).values():
        assert any(texts in word for word in command)
        assert any(tokenizer in word for word in command)
