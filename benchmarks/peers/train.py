"""A peer under training: a bare loop around the network of nanoGPT, litgpt or transformers.

    python -m benchmarks.peers.train transformers '{"n_layer": 6, "d_model": 384, ...}'

The loop is as good as one can be written without touching the peer's files: fused AdamW, SDPA,
gradients clipped at norm 1, gradients freed after the step. Whoever asks chooses the precision and
whether all of it is compiled. Runs in an environment without lit-llm.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.peers import networks
from benchmarks.turns import Turns

LR, BETAS, DECAY, CLIP = 3e-4, (0.9, 0.95), 0.1, 1.0  # configs/optim/adamw.yaml


@dataclass(frozen=True, kw_only=True)
class Sizes(networks.Network):
    """A network and its batch."""

    rows: int


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Mean loss of a network on inputs_BT and targets_BT."""

Compile = Callable[[nn.Module], nn.Module]


def nanogpt(sizes: Sizes) -> tuple[nn.Module, Loss]:
    """GPT-2 of a checkout that NANOGPT names: LayerNorm, GELU of 4 D, learned positions."""
    module = networks.nanogpt(os.environ.get("NANOGPT"))
    config = module.GPTConfig(
        n_layer=sizes.n_layer,
        n_head=sizes.n_head,
        n_embd=sizes.d_model,
        block_size=sizes.seq_len,
        vocab_size=sizes.vocabulary,
        dropout=0.0,
        bias=False,
    )
    return module.GPT(config), lambda model, inputs, targets: model(inputs, targets)[1]


def litgpt(sizes: Sizes) -> tuple[nn.Module, Loss]:
    """Litgpt's GPT with its own loss."""
    model = networks.litgpt(sizes)
    from litgpt.utils import chunked_cross_entropy

    # As its own pretraining does; in one piece, for chunks of logits cost time and save nothing.
    return model, lambda gpt, x, y: chunked_cross_entropy(gpt(x), y, chunk_size=0)


def transformers(sizes: Sizes) -> tuple[nn.Module, Loss]:
    """LlamaForCausalLM with its own loss."""

    def loss(model: nn.Module, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return model(input_ids=inputs_BT, labels=targets_BT, shift_labels=targets_BT).loss

    return networks.transformers(sizes, use_cache=False, pad_token_id=None), loss


PEERS = {"nanogpt": nanogpt, "litgpt": litgpt, "transformers": transformers}


class Loop:
    """A network that trains when it is asked to.

    Args:
        build: makes the network and its loss
        sizes: of network and batch
        mode: 32-true, bf16-mixed (autocast) or bf16-true
        compile: gives the network compiled; None: it is not
    """

    def __init__(
        self,
        build: Callable[[Sizes], tuple[nn.Module, Loss]],
        sizes: Sizes,
        mode: str = "32-true",
        compile: Compile | None = None,
    ) -> None:
        torch.manual_seed(1337)
        self.sizes, self.mode = sizes, mode
        model, self.loss = build(sizes)
        self.model = model.bfloat16() if mode == "bf16-true" else model
        self.forward = compile(model) if compile else model
        self.parameters = list(model.parameters())
        groups = [
            {"params": [p for p in self.parameters if p.dim() >= 2], "weight_decay": DECAY},
            {"params": [p for p in self.parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True)
        self.generator = torch.Generator().manual_seed(1337)

    def step(self, rows_BT: Tensor | None = None) -> None:
        """Train on rows of seq_len + 1 tokens; random ones if there are none."""
        if rows_BT is None:
            shape = (self.sizes.rows, self.sizes.seq_len + 1)
            rows_BT = torch.randint(self.sizes.vocabulary, shape, generator=self.generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.mode == "bf16-mixed"):
            loss = self.loss(
                self.forward, rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous()
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def turn(self, steps: int) -> dict[str, float]:
        """Train so many steps; seconds, and the most memory held since the process began."""
        before = perf_counter()
        for _ in range(steps):
            self.step()
        seconds = perf_counter() - before
        return {"seconds": seconds, "peak_bytes": peak_bytes()}

    def learn(self, path: str, steps: int, rows: int) -> float:
        """Train on the bytes of a file and score its last tenth; nats per byte.

        Which rows make up a step is the same for everyone.
        """
        bytes_N = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8).long()
        seq_len, val_from = self.sizes.seq_len, int(len(bytes_N) * 0.9)
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            starts = torch.randint(val_from - seq_len - 1, (rows,), generator=generator)
            self.step(torch.stack([bytes_N[s : s + seq_len + 1] for s in starts.tolist()]))
        rows_BT = bytes_N[val_from:].unfold(0, seq_len + 1, seq_len)[: 8 * rows]
        model = self.model.float()  # what was learned is scored in float32, however it was learned
        with torch.no_grad():
            losses = [self.loss(model, b[:, :-1], b[:, 1:]) for b in rows_BT.split(rows)]
        return float(torch.stack(losses).mean())

    def counts(self) -> dict[str, int]:
        """Parameters without token and position tables, and FLOPs that train on a token."""
        tables = (m for m in self.model.modules() if isinstance(m, nn.Embedding))
        table_ids = {id(m.weight) for m in tables}
        inner = sum(p.numel() for p in self.parameters if id(p) not in table_ids)
        s = self.sizes
        head = s.vocabulary * s.d_model  # tied, so among the tables
        attention = 2 * s.n_layer * s.d_model * s.seq_len  # both products, masked half included
        return {"inner_parameters": inner, "flops_per_token": 6 * (inner + head + attention)}


def peak_bytes() -> int:
    """Most resident memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def whole(model: nn.Module) -> nn.Module:
    """Compile the whole network."""
    compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return compiled


def serve(
    build: Callable[[Sizes], tuple[nn.Module, Loss]], sizes: Sizes, compiler: Compile = whole
) -> None:
    """Train when asked to."""
    turns = Turns()
    loops: list[Loop] = []

    def use(mode: str, compile: bool = False) -> dict[str, int]:
        """Begin anew in another way; the network before is dropped first."""
        loops.clear()
        torch.compiler.reset()
        loops.append(Loop(build, sizes, mode, compiler if compile else None))
        return loops[0].counts()

    turns.serve(
        use=use,
        turn=lambda steps: loops[0].turn(steps),
        learn=lambda path, steps, rows: loops[0].learn(path, steps, rows),
    )


if __name__ == "__main__":
    serve(PEERS[sys.argv[1]], Sizes(**json.loads(sys.argv[2])))
