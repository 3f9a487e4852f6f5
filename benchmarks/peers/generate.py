"""A peer that continues prompts: transformers, litgpt or llama.cpp with random weights.

    python -m benchmarks.peers.generate transformers '{"n_layer": 12, ..., "dtype": "bfloat16"}'

Greedy, with no token that ends an answer, and with all the threads that the machine has. A turn
says how long the whole took, prompt included. Runs in an environment without lit-llm.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.peers import networks
from benchmarks.turns import Turns

Generate = Callable[[list[list[int]], int, bool], None]
"""Continues prompts of equal length by so many tokens; whether with a static cache."""


@dataclass(frozen=True, kw_only=True)
class Sizes(networks.Network):
    """A network and the type of its weights."""

    dtype: str
    """float32 or bfloat16"""


def transformers(sizes: Sizes) -> Generate:
    """`generate` of LlamaForCausalLM with SDPA."""
    import torch

    model = networks.transformers(sizes, pad_token_id=0).to(getattr(torch, sizes.dtype)).eval()

    def generate(prompts: list[list[int]], new: int, static: bool) -> None:
        ids = torch.tensor(prompts)
        # A static cache would also switch compilation on, on a GPU alone.
        cache = {"cache_implementation": "static"} if static else {}
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            **cache,
        )
        assert found.shape == (len(prompts), ids.shape[1] + new)

    return generate


def litgpt(sizes: Sizes) -> Generate:
    """The `generate` of litgpt/generate/base.py; one prompt at a time."""
    import torch
    from litgpt.generate.base import generate as continued

    model: Any = networks.litgpt(sizes)
    dtype = getattr(torch, sizes.dtype)
    model.to(dtype).eval()

    def generate(prompts: list[list[int]], new: int, static: bool) -> None:
        (prompt,) = prompts
        model.max_seq_length = len(prompt) + new
        model.clear_kv_cache()
        model.set_kv_cache(1, dtype=dtype)
        found = continued(
            model, torch.tensor(prompt), len(prompt) + new, temperature=0.0, top_p=0.0
        )
        assert len(found) == len(prompt) + new

    return generate


def llama_cpp(sizes: Sizes) -> Generate:
    """The server of llama.cpp, asked in its own process; its weights come from a GGUF."""
    from xllamacpp import CommonParams, Server

    from benchmarks.peers.llamacpp import write_gguf

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "random.gguf"
    write_gguf(path, sizes)
    params = CommonParams()
    params.model.path = str(path)
    params.n_ctx = sizes.seq_len
    params.n_parallel = 1
    params.warmup = True
    params.verbosity = -1
    params.cpuparams.n_threads = os.cpu_count() or 1
    params.cpuparams_batch.n_threads = os.cpu_count() or 1
    server = Server(params)

    def generate(prompts: list[list[int]], new: int, static: bool) -> None:
        (prompt,) = prompts
        request = {
            "prompt": prompt,
            "n_predict": new,
            "temperature": 0.0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        answer = server.handle_completions(request)
        used = (answer.get("usage") or {}).get("completion_tokens", answer.get("tokens_predicted"))
        assert used == new, answer

    generate.folder = folder  # type: ignore[attr-defined]  # it lasts as long as the server
    return generate


PEERS = {"transformers": transformers, "litgpt": litgpt, "llama.cpp": llama_cpp}


def main() -> None:
    turns = Turns()
    generate = PEERS[sys.argv[1]](Sizes(**json.loads(sys.argv[2])))

    def turn(prompts: list[list[int]], new: int, static: bool = False) -> float:
        before = perf_counter()
        generate(prompts, new, static)
        return perf_counter() - before

    turns.serve(turn=turn)


if __name__ == "__main__":
    main()
