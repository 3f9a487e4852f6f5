"""benchmarks/tables/train_throughput.py and memory.py: they run through at tiny sizes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks.peers.train import PEERS, Loop, Sizes
from benchmarks.result import ROOT

SIZES = Sizes(n_layer=2, n_head=2, d_model=8, d_ff=24, vocabulary=300, seq_len=6, rows=3)

# what a checkout of nanoGPT offers, as far as the table uses it
NANOGPT = """
import torch
from types import SimpleNamespace as GPTConfig

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = torch.nn.Embedding(config.vocab_size, config.n_embd)

    def forward(self, tokens, targets):
        logits = self.table(tokens) @ self.table.weight.T
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
"""


def dry_run(table, folder, **env) -> dict:
    env = {**os.environ, "BENCH_DRY_RUN": "1", "OUT": str(folder), "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-m", f"benchmarks.tables.{table}"]
    finished = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return json.loads(next(folder.glob("*.json")).read_text()) | {"printed": finished.stdout}


@pytest.mark.timeout(900)  # a run of fit for each network, and cores that may be taken
@pytest.mark.parametrize(
    "table", [pytest.param("train_throughput", marks=pytest.mark.slow), "memory"]
)
def test_missing_peers_are_not_run_and_leave_the_bars_unmet(table, tmp_path):
    found = dry_run(table, tmp_path, PEERS="/nowhere/python", NANOGPT="")
    names = {row["name"].removeprefix("(a) ").removeprefix("(b) ") for row in found["rows"]}
    assert "lit-llm" in names
    assert names <= {"lit-llm", "our bare loop"}
    assert {missing["name"].split()[-1] for missing in found["not_run"]} == set(PEERS)
    assert "/nowhere/python is not there" in found["printed"]
    assert found["bars"] == {}


@pytest.mark.slow
@pytest.mark.timeout(900)  # a run of fit for each network, and cores that may be taken
def test_a_peer_that_is_there_takes_turns_with_a_run_of_fit(tmp_path):
    (tmp_path / "model.py").write_text(NANOGPT)
    (tmp_path / "out").mkdir()
    found = dry_run(
        "train_throughput", tmp_path / "out", PEERS=sys.executable, NANOGPT=str(tmp_path)
    )
    rows = {row["name"]: row for row in found["rows"]}
    assert {"(a) nanogpt", "(a) lit-llm", "(b) nanogpt", "(b) lit-llm"} <= set(rows)
    assert rows["(a) lit-llm"]["ratio"] == 1
    peer, ours = rows["(a) nanogpt"]["seconds"], rows["(a) lit-llm"]["seconds"]
    quotients = sorted(p / o for p, o in zip(peer, ours, strict=True))
    assert rows["(a) nanogpt"]["ratio"] == pytest.approx(sum(quotients) / 2)  # of two rounds
    losses = found["settings"]["losses after equal tokens, a peer"]
    assert set(losses) == {"32-true", "bf16-mixed", "bf16-true"}
    assert "32-true" in found["settings"]["losses after equal tokens, ours"]


class Bigram(nn.Module):
    """A table of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 300)
        nn.init.normal_(self.table.weight, std=0.02)
        self.norm = nn.LayerNorm(300)

    def forward(self, tokens):
        return self.norm(self.table(tokens))


def bigram(sizes):
    return Bigram(), lambda model, x, y: nn.functional.cross_entropy(
        model(x).flatten(0, 1), y.flatten()
    )


@pytest.mark.parametrize("mode", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_peers_loop_learns_in_its_precision(mode, tmp_path):
    (tmp_path / "text").write_bytes(b"abc" * 400)
    first = Loop(bigram, SIZES, mode).learn(str(tmp_path / "text"), steps=0, rows=2)
    loop = Loop(bigram, SIZES, mode)
    expected = torch.bfloat16 if mode == "bf16-true" else torch.float32
    assert {p.dtype for p in loop.parameters} == {expected}
    assert loop.turn(2)["seconds"] > 0
    assert loop.learn(str(tmp_path / "text"), steps=30, rows=2) < first - 0.01


def test_a_peers_work_is_counted_without_its_tables():
    # the norm's 2 * 300; head 300 * 8; both products of attention 2 * 2 layers * 8 * 6
    counts = Loop(bigram, SIZES).counts()
    assert counts["inner_parameters"] == 600
    assert counts["flops_per_token"] == 6 * (600 + 2400 + 192)
