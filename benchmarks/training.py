"""Contenders under training, all with the same work: `cli.py fit`, our bare loop, the peers'.

(a)   6 layers, width 384, rows of 256 tokens, a vocabulary of 4096
(b)   gpt-124m, a row of 1024 tokens
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from benchmarks.rounds import PEERS, Contender
from lit_llm.model.config import GPTConfig
from lit_llm.model.size import size

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
NAMES = ("nanogpt", "litgpt", "transformers")

# sizes of the peers' loop, and what of them `fit` is told by a file
TINY = {"n_layer": 2, "n_head": 2, "d_model": 48, "d_ff": 128, "vocabulary": 512, "seq_len": 32}
A = {"n_layer": 6, "n_head": 6, "d_model": 384, "d_ff": 1024, "vocabulary": 4096, "seq_len": 256}
B = {
    "n_layer": 12,
    "n_head": 12,
    "d_model": 768,
    "d_ff": 2048,
    "vocabulary": 50304,
    "seq_len": 1024,
}
WARMUP = 1 if DRY else 20
SETTINGS: dict[str, dict[str, Any]] = {
    "a": {
        "sizes": {**(TINY if DRY else A), "rows": 2 if DRY else 8},
        "warmup": WARMUP,
        "steps": 4,
        "probed": 1 if DRY else 3,
    },
    "b": {
        "sizes": {**(TINY if DRY else B), "rows": 1},
        "warmup": min(WARMUP, 3),  # of seconds each; the rounds show whether the time is flat
        "steps": 1,
        "probed": 1 if DRY else 2,
    },
}
# What `fit` sets for itself; with it, peers too are not slowed down by whatever else runs here.
THREADS = {"GOMP_SPINCOUNT": "5000"}

Mode = tuple[str, bool]
"""Precision, and whether the network is compiled."""


def network(sizes: dict[str, int]) -> GPTConfig:
    """The network as lit-llm describes it."""
    return GPTConfig(
        n_layer=sizes["n_layer"],
        n_head=sizes["n_head"],
        d_model=sizes["d_model"],
        d_ff=sizes["d_ff"],
        vocab_size=sizes["vocabulary"],
        max_seq_len=sizes["seq_len"],
        tie_embeddings=True,
    )


def start_fit(sizes: dict[str, int], mode: Mode) -> Contender:
    """A run of `cli.py fit` on random tokens, one document in each row."""
    folder = tempfile.TemporaryDirectory(prefix="lit-llm-bench-")
    arguments = [
        *("-m", "benchmarks.fit_in_turns"),
        *fit_arguments(sizes, mode[0]),
        f"--model.compile={str(mode[1]).lower()}",
        "--trainer.max_steps=100000",
        f"--runs_dir={folder.name}",
        "--run=measured",
    ]
    return Contender(arguments, env=THREADS, folder=folder)


def fit_arguments(sizes: dict[str, int], precision: str) -> list[str]:
    """Of `fit`: the network and its batch."""
    files = (
        "configs/optim/adamw.yaml",
        "configs/trainer/cpu.yaml",
        "benchmarks/random-tokens.yaml",
    )
    gpt = {name: sizes[name] for name in ("n_layer", "n_head", "d_model", "d_ff")}
    return [
        *(part for file in files for part in ("-c", file)),
        *(f"--model.gpt.{name}={value}" for name, value in gpt.items()),
        "--model.gpt.tie_embeddings=true",
        f"--data.vocabulary={sizes['vocabulary']}",
        f"--data.seq_len={sizes['seq_len']}",
        f"--data.global_batch_size={sizes['rows']}",
        "--data.documents=1",
        f"--trainer.precision={precision}",
    ]


def start_bare(sizes: dict[str, int]) -> Contender:
    """Our network in the peers' loop."""
    return Contender(["-m", "benchmarks.our_loop", json.dumps(sizes)], env=THREADS)


def start_peer(name: str, sizes: dict[str, int]) -> Contender:
    """A peer of equal size; it is told later how to compute."""
    return Contender(
        ["-m", "benchmarks.peers.train", name, json.dumps(sizes)], python=PEERS, env=THREADS
    )


def use(peer: Contender, sizes: dict[str, int], mode: Mode) -> None:
    """Choose a peer's mode, and make sure that it has as much to compute as we have."""
    counts = peer.ask("use", mode=mode[0], compile=mode[1])
    ours = size(network(sizes))
    inner = ours.parameters - sizes["vocabulary"] * sizes["d_model"]  # the tied table
    for name, theirs, mine in (
        ("parameters without tables", counts["inner_parameters"], inner),
        ("FLOPs per token", counts["flops_per_token"], ours.flops_per_token),
    ):
        assert DRY or abs(theirs / mine - 1) < 0.01, f"{name}: {theirs:,} and {mine:,}"
