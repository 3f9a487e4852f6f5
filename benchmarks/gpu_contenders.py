"""The networks of others for the tables of a GPU, built as for those of the CPU.

All of them live in this process, for they share the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measuring import COMPILE, SEQ_LEN, device, network
from benchmarks.peers import train as peers
from benchmarks.rounds import NotRun
from lit_llm.data.batch import Batch

LR, BETAS, DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0


class Contender(NamedTuple):
    """What a bare training loop needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_of: Callable[[Batch], Tensor]


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of all, ours included."""
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)


def peer(name: str) -> Contender:
    """A peer of equal sizes with its own loss; the whole network compiled, as its scripts do.

    Raises:
        NotRun: it is not installed, or cannot be imported.
    """
    model, loss = peer_network(name)
    forward: Any = torch.compile(model) if COMPILE else model
    optimizer = adamw([{"params": list(model.parameters())}])
    return Contender(
        model, optimizer, lambda batch: loss(forward, batch.tokens_BT, batch.labels_BT)
    )


def peer_network(name: str) -> tuple[nn.Module, peers.Loss]:
    """A peer's network with random weights on the device, and its loss.

    Args:
        name: nanogpt, litgpt or transformers

    Raises:
        NotRun: it is not installed, or cannot be imported.
    """
    gpt = network()
    sizes = peers.Sizes(
        n_layer=gpt.n_layer,
        n_head=gpt.n_head,
        d_model=gpt.d_model,
        d_ff=gpt.ff_dim,
        vocabulary=gpt.padded_vocab_size,
        seq_len=SEQ_LEN,
        rows=0,
    )
    try:
        model, loss = peers.PEERS[name](sizes)
    except (ImportError, SystemExit) as reason:
        raise NotRun(str(reason).removeprefix("error: ")) from None
    return model.to(device()), loss
