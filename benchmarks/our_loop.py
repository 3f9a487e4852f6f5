"""Our network in the bare loop that the peers run in: what the Trainer costs is the difference.

python -m benchmarks.our_loop '{"n_layer": 12, ...}'
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.peers.train import Loss, Sizes, serve
from lit_llm.data.batch import Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.objective import CausalLM
from lit_llm.training.parallel import compile_blocks


def ours(sizes: Sizes) -> tuple[nn.Module, Loss]:
    """Our network and the mean of its loss, one document in each row."""
    network = asdict(sizes)
    network.pop("rows")
    config = GPTConfig(
        vocab_size=network.pop("vocabulary"),
        max_seq_len=network.pop("seq_len"),
        tie_embeddings=True,
        **network,
    )
    gpt = GPT(config)
    init_weights(gpt, 1337, config.n_layer)
    objective = CausalLM()

    def loss(model: nn.Module, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        positions_BT = torch.arange(inputs_BT.size(1)).expand_as(inputs_BT)
        batch = Batch(inputs_BT, targets_BT, torch.zeros_like(inputs_BT), positions_BT)
        sums = objective(model, batch)  # type: ignore[arg-type]
        return sums.loss / sums.tokens

    return gpt, loss


def blocks(gpt: nn.Module) -> nn.Module:
    """Compile what `model.compile` does."""
    compile_blocks(cast(GPT, gpt))
    return gpt


if __name__ == "__main__":
    serve(ours, Sizes(**json.loads(sys.argv[1])), blocks)
