import json
import math
import os
import subprocess
import sys

import pytest
import torch

from benchmarks.result import ROOT
from benchmarks.tables import time_to_loss
from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.find import resolve

TEXT = "".join(f"{n}: to be or not to be, that is question {n * n}.\n" for n in range(400))


def table(out, text, **env):
    environment = {**os.environ, "BENCH_DRY_RUN": "1", "OUT": str(out), "NANOGPT": "", **env}
    command = [sys.executable, "-m", "benchmarks.tables.time_to_loss"]
    environment["SHAKESPEARE"] = str(text)
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return json.loads((out / "time-to-loss.json").read_text())


def test_the_table_runs_through_and_misses_nanogpt(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    result = table(tmp_path, text)
    (row,) = result["rows"]
    assert row["name"] == "lit-llm"
    assert row["seconds"] > 1
    assert 2.5 < row["nats_per_character"] < math.log(400)  # after two steps: little learned
    assert [missing["name"] for missing in result["not_run"]] == ["nanoGPT"]
    assert "to-1.88" not in result["bars"]


def test_without_the_text_nothing_is_run(tmp_path):
    result = table(tmp_path, tmp_path / "none.txt")
    assert result["rows"] == []
    assert "SHAKESPEARE=path" in result["not_run"][0]["reason"]


@pytest.mark.slow
def test_our_score_is_that_of_a_loop_over_single_characters(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text(TEXT[:3000])
    time_to_loss.prepare(text, tmp_path)
    run = time_to_loss.run_ours(text, tmp_path, "run", "--trainer.max_steps=1")
    gpt, bundle = load_model(resolve(tmp_path / "run"))
    tail = TEXT[:3000][2700:]
    ids = [bundle.tokenizer.encode(character)[0] for character in TEXT[2699:3000]]
    context = bundle.config.max_seq_len
    with torch.no_grad():
        nats = [
            -gpt(torch.tensor([ids[i // context * context : i + 1]]))[0, -1].log_softmax(-1)[
                ids[i + 1]
            ]
            for i in range(len(tail))
        ]
    assert abs(run.nats - sum(nats) / 300) < 1e-4
