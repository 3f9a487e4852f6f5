"""benchmarks/bench.py: which tables there are, and what the last line and the exit code say."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks import bench
from benchmarks.result import ROOT, judged, read_bars


@pytest.mark.parametrize("table", bench.TABLES + bench.LONG_TABLES)
def test_every_table_has_a_module(table):
    assert find_spec("benchmarks.tables." + table.replace("-", "_"))


def test_every_bar_belongs_to_a_table():
    tables = {*bench.TABLES, *bench.LONG_TABLES}
    assert {name for name in read_bars() if not name.startswith("gpu-")} <= tables


def write(folder, table, values, *, dry_run=False):
    bars = {n: judged(bar, values[n]) for n, bar in read_bars()[table].items() if n in values}
    (folder / f"{table}.json").write_text(json.dumps({"bars": bars, "dry_run": dry_run}))


def test_all_bars_met_is_a_success(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    write(tmp_path, "load", {"no-worker": [20.0], "one-worker": [30.0]})
    assert bench._count(["load"])
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 bars met"


def test_a_bar_that_was_not_run_is_not_met(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    write(tmp_path, "load", {"no-worker": [20.0]})
    assert not bench._count(["load"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["load, one-worker: not run: NOT MET", "1 of 2 bars met"]


def test_a_dry_run_meets_no_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    write(tmp_path, "load", {"no-worker": [20.0], "one-worker": [30.0]}, dry_run=True)
    assert not bench._count(["load"])
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 2 bars met"


def test_a_table_that_never_wrote_its_file_leaves_its_bars_unmet(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert not bench._count(["load"])
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 2 bars met"


def test_a_table_that_there_is_not_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", "speed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no table speed: there are start-up, " in done.stderr
