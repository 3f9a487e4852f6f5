"""Generation by gpt-124m in bfloat16, beside what the memory's bandwidth allows.

Each new token needs every weight and every key and value so far, once per step: these bytes over
the bandwidth of a large copy, measured here, are the least time that a step can take. A step is
timed as the difference between many new tokens and one, so reading the prompt is not part of it.
Weights are random: what is generated means nothing and takes as long.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_peers import NotHere, llama_config
from benchmarks.measuring import (
    DRY,
    VOCABULARY,
    Clock,
    copy_bandwidth,
    device,
    gpu_result,
    network,
    out_of_memory,
    seconds_of,
)
from lit_llm.generation import Sampling, generate
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.size import size

BATCHES = (1, 2) if DRY else (1, 8, 64)
PROMPT, NEW = (8, 8) if DRY else (128, 256)
REPEATS = 1 if DRY else 3

Run = Callable[[torch.Tensor, int], None]
"""Continues prompts_BT by so many tokens."""


def main() -> None:
    clock = Clock()
    columns = ("name", "batch", "tokens_per_second", "ms_per_step", "share_of_bound", "prefill_ms")
    result = gpu_result("decode", columns)
    bandwidth = copy_bandwidth(device())
    result.settings(prompt=PROMPT, new_tokens=NEW, copy_bytes_per_second=bandwidth)
    print(f"  a large copy moves {bandwidth / 1e12:.3g} TB/s")
    for name, prepare in {"lit-llm": _ours, "transformers": _transformers}.items():
        try:
            run = prepare()
        except NotHere as reason:
            result.not_run(name, str(reason))
            continue
        for batch in BATCHES:
            if clock.left < 20:
                result.not_run(f"{name}, batch {batch}", "the time is up")
                continue
            try:
                result.add(name=name, batch=batch, **_measure(run, batch, bandwidth))
            except Exception as error:
                if name == "lit-llm" and not out_of_memory(error):
                    raise
                words = f"{type(error).__name__}: {str(error)[:200]}"
                result.not_run(f"{name}, batch {batch}", words)
    result.show()
    print("share_of_bound: least time of a step by bandwidth / its time")


def _measure(run: Run, batch: int, bandwidth: float) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(batch)
    prompts_BT = torch.randint(VOCABULARY, (batch, PROMPT), generator=generator)
    run(prompts_BT, 2)  # finds its kernels
    prefill = [seconds_of(lambda: run(prompts_BT, 1), device()) for _ in range(REPEATS)]
    whole = [seconds_of(lambda: run(prompts_BT, NEW), device()) for _ in range(REPEATS)]
    step = (statistics.median(whole) - statistics.median(prefill)) / (NEW - 1)
    least = bytes_per_step(batch) / bandwidth
    return {
        "tokens_per_second": batch / step,
        "ms_per_step": 1e3 * step,
        "share_of_bound": least / step,
        "prefill_ms": 1e3 * statistics.median(prefill),
        "least_ms_per_step": 1e3 * least,
        "seconds": {"one_token": prefill, "all": whole},
    }


def bytes_per_step(batch: int) -> int:
    """What a step has to read at least, in 16 bits; keys and values as on the average step."""
    counts = size(network())
    weights = 2 * (counts.parameters - counts.embedding_parameters)
    return weights + batch * (PROMPT + NEW // 2) * counts.cache_bytes_per_token


def _ours() -> Run:
    config = network()
    gpt = GPT(config)
    init_weights(gpt, 1337, config.n_layer)
    gpt.to(device(), torch.bfloat16)

    def run(prompts_BT: torch.Tensor, new: int) -> None:
        found = generate(gpt, prompts_BT.tolist(), Sampling(max_new_tokens=new))
        assert all(len(row.ids) == new for row in found)

    return run


def _transformers() -> Run:
    try:
        from transformers import LlamaForCausalLM
    except ImportError:
        raise NotHere("transformers is not installed") from None
    llama: Any = LlamaForCausalLM(llama_config(network())).eval()
    llama.to(device(), torch.bfloat16)

    def run(prompts_BT: torch.Tensor, new: int) -> None:
        ids = prompts_BT.to(device())
        ones = torch.ones_like(ids)
        found = llama.generate(ids, attention_mask=ones, max_new_tokens=new, do_sample=False)
        assert found.shape[1] == PROMPT + new

    return run


if __name__ == "__main__":
    main()
