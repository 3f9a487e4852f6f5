import json
import os
import subprocess
import sys

import pytest

from benchmarks.result import ROOT
from benchmarks.tables.step_time import _parts


def test_the_table_runs_through(tmp_path):
    environment = {**os.environ, "BENCH_DRY_RUN": "1", "OUT": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.tables.step_time"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    rows = json.loads((tmp_path / "step-time.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["(a)", "(b)"]
    for row in rows:
        assert 0 < row["floor_share"] < 1
        assert sum(row["parts"].values()) == pytest.approx(1, abs=0.01)
        assert {"matrix products", "attention", "optimizer"} <= row["parts"].keys()


def test_the_parts_are_those_of_the_first_table():
    text = "\n".join(
        [
            f"{'where the time goes':<44}   share  ms a step",
            f"{'matrix products':<44}   52.8%    151.276",
            f"{'RoPE, heads':<44}    2.9%      8.166",
            f"{'all':<44}  100.0%    286.459",
            "",
            f"{'aten::mm':<44}   52.5%    150.287            66",
        ]
    )
    assert _parts(text) == pytest.approx({"matrix products": 0.528, "RoPE, heads": 0.029})
