"""benchmarks/gpu.sh, as far as a machine without a GPU can tell: every part runs through."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import gpu_ladder, gpu_large, measuring
from benchmarks.result import Result

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu.sh"


def gpu_sh(part: str, out: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(out), **env}
    environment.pop("NANOGPT", None)
    return subprocess.run(
        [SCRIPT, part], env=environment, capture_output=True, text=True, timeout=580
    )


def dry_run(part: str, out: Path) -> dict:
    finished = gpu_sh(part, out, GPU_DRY_RUN="1")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result = json.loads((out / f"gpu-{part}.json").read_text())
    assert result["command"] == f"benchmarks/gpu.sh {part}"
    assert result["dry_run"] is True
    assert result["torch"]
    assert result["rows"]
    return result


def test_the_script_is_bash():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_a_part_that_there_is_not_is_refused(tmp_path):
    finished = gpu_sh("speed", tmp_path)
    assert finished.returncode == 2
    assert finished.stderr == "usage: benchmarks/gpu.sh parity|ladder|large|peers|decode\n"


def test_decode_runs_through(tmp_path):
    result = dry_run("decode", tmp_path)
    ours = [row for row in result["rows"] if row["name"] == "lit-llm"]
    assert [row["batch"] for row in ours] == [1, 2]
    # 2 layers of width 32 with an MLP of 64, tied: 256 rows of the table, 5 norms; in 16 bits.
    weights = 2 * (256 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64) + 5 * 32)
    cache = (8 + 4) * 2 * 2 * 2 * 32  # 12 tokens on average; keys and values of 2 layers
    least_seconds = (weights + cache) / result["settings"]["copy_bytes_per_second"]
    assert ours[0]["least_ms_per_step"] == pytest.approx(1e3 * least_seconds)
    assert set(result["bars"]) == {"batch-1-bandwidth", "batch-64-transformers"}


@pytest.mark.slow
def test_peers_run_through(tmp_path):
    result = dry_run("peers", tmp_path)
    names = [row["name"] for row in result["rows"]]
    missing = [peer["name"] for peer in result["not_run"]]
    assert names[:2] == ["lit-llm", "our bare loop"]
    assert names[2:] + missing == ["transformers", "nanoGPT", "litgpt"]
    assert result["rows"][0]["ratio"] == 1
    # Who is the best of the peers is not known while one of them is missing.
    assert set(result["bars"]) == {"trainer"}


@pytest.mark.slow
def test_the_ladder_runs_through(tmp_path):
    result = dry_run("ladder", tmp_path)
    assert not result["not_run"]
    assert [row["name"] for row in result["rows"]] == list(gpu_ladder.RUNGS)
    assert all(row["tokens_per_second"] > 0 for row in result["rows"])
    assert len(result["bars"]["tokens-per-second"]["values"]) == 3


@pytest.mark.slow
def test_the_large_network_runs_through(tmp_path):
    result = dry_run("large", tmp_path)
    assert not result["not_run"]
    assert [row["name"] for row in result["rows"]] == list(gpu_large.SETTINGS)
    assert result["bars"] == {}  # no share of a peak that nobody knows


def test_each_rung_of_the_ladder_differs_from_the_one_below_by_one_setting():
    names = list(gpu_ladder.RUNGS)
    for below, rung in pairwise(names):
        one, other = (set(gpu_ladder.arguments(name)) for name in (below, rung))
        changed = {flag.split("=")[0] for flag in one ^ other}
        assert len(changed) == (0 if rung == gpu_ladder.TOP else 1), rung


def test_above_the_ladder_is_what_a_run_does_by_itself():
    flags = [a for a in gpu_ladder.arguments(gpu_ladder.TOP) if a.startswith("--")]
    assert set(flags) - {"--model.compile=true"} == {
        "--trainer.precision=bf16-mixed",
        "--model.optimizer.init_args.fused=true",
        "--model.objective=lit_llm.objective.CausalLM",
        "--model.objective.init_args.chunk_tokens=8192",
    }


def test_bars_that_were_not_measured_are_counted_as_unmet(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OUT", str(tmp_path))
    result = Result("gpu-decode", ("name",))
    result.bar("batch-64-transformers", [1.6] * 5)
    assert not measuring.all_met(result)
    out = capsys.readouterr().out
    assert "batch-1-bandwidth: not run: NOT MET\n1 of 2 bars met\n" in out
    result.bar("batch-1-bandwidth", [0.6] * 4 + [0.4])
    assert measuring.all_met(result)


@pytest.mark.slow
def test_parity_runs_through(tmp_path):
    result = dry_run("parity", tmp_path)
    assert all(row["ok"] for row in result["rows"])
    reasons = {missing["reason"] for missing in result["not_run"]}
    assert reasons <= {"means nothing on a CPU", "a minute on a CPU"}


def test_what_is_missing_is_named_with_the_command_that_fetches_it(tmp_path):
    # a Python that finds its standard library and nothing else
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    finished = gpu_sh("decode", tmp_path, PYTHON=str(bare), WHEELS=str(tmp_path / "none"))
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("missing: jsonargparse docstring-parser typeshed-client sentencepiece")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"pip download --no-deps --only-binary=:all: --python-version {version} -d" in line
