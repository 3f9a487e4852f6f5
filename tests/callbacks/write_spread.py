"""One of two processes that share a model by FSDP2: trains, writes texts, trains on.

    python write_spread.py RANK MEETING_FILE

Rank 0 prints what came of it as JSON.
"""

import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lit_llm.callbacks.continuations import continue_in_lockstep, continue_prompts, is_spread
from lit_llm.generation.sampling import Sampling
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

PROMPTS, STOP = [[26, 3, 4], [26, 5], [26, 3, 4]], {7, 9, 11}
SAMPLING = Sampling(max_new_tokens=12, temperature=1.0)


def build() -> GPT:
    config = GPTConfig(vocab_size=28, max_seq_len=32, n_layer=2, d_model=8, n_head=2)
    generator = torch.Generator().manual_seed(3)
    gpt = GPT(config)
    with torch.no_grad():
        for matrix in (p for p in gpt.parameters() if p.dim() > 1):
            matrix.normal_(std=0.5, generator=generator)
    return gpt


def train(rank: int, writes: bool) -> tuple[list, list]:
    """Three steps; the texts written after each, and the weights at the end."""
    gpt = build()
    for block in gpt.blocks:
        fully_shard(block)
    fully_shard(gpt)
    optimizer = torch.optim.SGD(gpt.parameters(), lr=1e-3)
    tokens_BT = torch.randint(26, (2, 17), generator=torch.Generator().manual_seed(rank))
    texts = []
    for _ in range(3):
        gpt(tokens_BT).logsumexp(-1).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if writes:
            # On rank 1 nothing ends a text, as if it had rounded to another token.
            stop = STOP if rank == 0 else set()
            texts.append(continue_in_lockstep(gpt, PROMPTS, SAMPLING, stop))
            assert is_spread(gpt)
            assert all(isinstance(parameter, DTensor) for parameter in gpt.parameters())
    return texts, [parameter.full_tensor() for parameter in gpt.parameters()]  # type: ignore[attr-defined]


def main(rank: int, meeting_file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting_file}", rank=rank, world_size=2)
    _, plain = train(rank, writes=False)
    texts, weights = train(rank, writes=True)
    whole = build()
    with torch.no_grad():
        for parameter, weight in zip(whole.parameters(), weights, strict=True):
            parameter.copy_(weight)
    if rank == 0:
        result = {
            "texts": texts[-1],
            "texts_of_the_whole_model": continue_prompts(whole, PROMPTS, SAMPLING, STOP),
            "learned_the_same": all(map(torch.equal, weights, plain)),
        }
        print(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
