"""The planned peak beside what the operating system says that training took."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from torch.optim import AdamW

from lit_llm.model.config import GPTConfig
from lit_llm.objective import CausalLM
from lit_llm.optim import Muon
from lit_llm.planning.trace import Job, Trace

ROOT = Path(__file__).parents[2]
OPTIMIZERS = {"AdamW": partial(AdamW, fused=True), "Muon": Muon}
PLAIN = {
    "precision": "32-true",
    "accumulate": 1,
    "optimizer": "AdamW",
    "chunk_tokens": 8192,
    "activation_checkpointing": 0,
}
# So that memory that is given back is seen to be given back.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
}
M_1 = {"n_layer": 3, "d_model": 128, "n_head": 4, "vocab_size": 1024, "qk_norm": True}
M_10 = {"n_layer": 6, "d_model": 320, "n_head": 5, "vocab_size": 4096}
M_30 = {"n_layer": 8, "d_model": 512, "n_head": 8, "vocab_size": 8192, "tie_embeddings": True}


def planned(settings: dict) -> float:
    job = Job(
        gpt=GPTConfig(max_seq_len=settings["seq_len"], **settings["gpt"]),
        objective=CausalLM(settings["chunk_tokens"]),
        optimizer=OPTIMIZERS[settings["optimizer"]],
        seq_len=settings["seq_len"],
        precision=settings["precision"],
        activation_checkpointing=settings["activation_checkpointing"],
    )
    phases = Trace(job).at(settings["rows"], accumulating=settings["accumulate"] > 1)
    return max(sum(kinds.values()) for kinds in phases.values())


def measured(settings: dict) -> float:
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "measure.py"), json.dumps(settings)],
        capture_output=True,
        text=True,
        env={**os.environ, **MALLOC, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert finished.returncode == 0, finished.stderr
    return float(finished.stdout.splitlines()[-1])


def test_the_plan_of_a_million_parameters_is_within_a_tenth_of_what_was_taken():
    settings = {**PLAIN, "gpt": M_1, "rows": 16, "seq_len": 128}
    assert planned(settings) == pytest.approx(measured(settings), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"gpt": M_10, "rows": 8, "seq_len": 256},
        {"gpt": M_30, "rows": 2, "seq_len": 512},
        {"gpt": M_10, "rows": 8, "seq_len": 256, "accumulate": 2, "activation_checkpointing": 1},
        {"gpt": M_10, "rows": 8, "seq_len": 256, "chunk_tokens": 256},
        {"gpt": M_10, "rows": 4, "seq_len": 128, "optimizer": "Muon"},
        {"gpt": M_10, "rows": 8, "seq_len": 256, "precision": "bf16-true"},
        {"gpt": M_10, "rows": 8, "seq_len": 256, "precision": "bf16-mixed"},
    ],
    ids=["10M", "30M", "checkpointed", "chunked", "muon", "bf16-true", "bf16-mixed"],
)
def test_plans_are_within_a_tenth_of_what_was_taken(changes):
    settings = {**PLAIN, **changes}
    assert planned(settings) == pytest.approx(measured(settings), rel=0.1)
