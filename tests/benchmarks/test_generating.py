import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.generating import weight_bytes

ROOT = Path(__file__).parents[2]


def test_a_token_reads_every_matrix_once():
    sizes = {"n_layer": 2, "d_model": 10, "d_ff": 30, "vocabulary": 100}
    # a layer has 4 * 100 in its attention and 3 * 300 in its MLP, the output 1000
    assert weight_bytes(sizes, torch.bfloat16) == 2 * (2 * (400 + 900) + 1000)


@pytest.mark.parametrize("table", ["decode", "prefill"])
def test_without_peers_a_table_runs_and_their_bars_stay_open(table, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.tables.{table}"],
        cwd=ROOT,
        env={
            **os.environ,
            "BENCH_DRY_RUN": "1",
            "OMP_NUM_THREADS": "1",
            "OUT": str(tmp_path),
            "PEERS": str(tmp_path / "no-python"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / f"{table}.json").read_text())
    assert "transformers" in {row["name"] for row in found["not_run"]}
    assert "lit-llm" in {row["name"] for row in found["rows"]}
    assert not any("transformers" in name for name in found["bars"])
