"""lit-llm as a contender that continues prompts, and the network of the tables that need one.

python -m benchmarks.generating '{"n_layer": 12, ..., "dtype": "bfloat16"}'
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter
from typing import Any

import torch
import yaml

from benchmarks.result import ROOT
from benchmarks.rounds import PEERS, Contender
from benchmarks.turns import Turns
from lit_llm.generation import Decoding, Sampling, compile_now, fast_copy, generate
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.training.allocator import keep_freed_memory

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
ROUNDS = 2 if DRY else 5
SEQ_LEN = 64 if DRY else 2048
TINY = {"n_layer": 2, "n_head": 2, "d_model": 32, "d_ff": 64}


def sizes(dtype: str) -> dict[str, Any]:
    """What every contender is told: gpt-124m with GPT-2's vocabulary; tiny in a dry run."""
    text = (ROOT / "configs/model/gpt-124m.yaml").read_text(encoding="utf-8")
    network = TINY if DRY else yaml.safe_load(text)["model"]["gpt"]
    network = {name: network[name] for name in TINY}
    return {**network, "vocabulary": 100 if DRY else 50_257, "seq_len": SEQ_LEN, "dtype": dtype}


def prompts(batch: int, length: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(batch)
    ids: list[list[int]] = torch.randint(
        3, 100 if DRY else 50_257, (batch, length), generator=generator
    ).tolist()
    return ids


def ours(dtype: str) -> Contender:
    return Contender(["-m", "benchmarks.generating", json.dumps(sizes(dtype))])


def peer(name: str, dtype: str) -> Contender:
    return Contender(
        ["-m", "benchmarks.peers.generate", name, json.dumps(sizes(dtype))], python=PEERS
    )


def weight_bytes(gpt_sizes: dict[str, Any], dtype: torch.dtype) -> int:
    """What a token has to read: all matrices once; of the embedding, it is the output's."""
    d, f = gpt_sizes["d_model"], gpt_sizes["d_ff"]
    matrices = gpt_sizes["n_layer"] * (4 * d * d + 3 * d * f) + d * gpt_sizes["vocabulary"]
    return matrices * dtype.itemsize


def _main() -> None:
    turns = Turns()
    keep_freed_memory()  # as `cli.py predict` does on a CPU
    asked = json.loads(sys.argv[1])
    config = GPTConfig(
        **{name: asked[name] for name in TINY},
        vocab_size=asked["vocabulary"],
        max_seq_len=asked["seq_len"],
        tie_embeddings=True,
    )
    plain = GPT(config)
    init_weights(plain, 1337, config.n_layer)
    plain.to(getattr(torch, asked["dtype"])).eval()
    made: dict[str, GPT] = {"plain": plain}

    def model(way: str) -> GPT:
        if way not in made:
            compiled = way in ("compiled", "int8") and not DRY
            weights: Any = "packed" if way in ("packed", "compiled") or DRY else "int8"
            made[way] = fast_copy(plain, Decoding(weights=weights, compile=compiled))
            if compiled:
                compile_now(made[way])
        return made[way]

    def turn(prompts: list[list[int]], new: int, way: str) -> float:
        gpt = model(way)
        before = perf_counter()
        found = generate(gpt, prompts, Sampling(max_new_tokens=new))
        seconds = perf_counter() - before
        assert all(len(row.ids) == new for row in found)
        return seconds

    turns.serve(turn=turn)


if __name__ == "__main__":
    _main()
