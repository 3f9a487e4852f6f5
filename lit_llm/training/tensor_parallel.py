"""Tensor parallelism: each matrix is split over a group of devices that share every token.

Columns of the first matrices and rows of the last ones, so that attention and MLP need one
exchange each (Shoeybi et al., 2019, arXiv:1909.08053). Between them the residual stream is split
by position and not held by every device: norms are computed on a part of the sequence (sequence
parallelism, Korthikanti et al., 2022, arXiv:2205.05198). Token table and output projection are
split by vocabulary; the loss works on split logits.

A part of your own says how it is split by a class attribute:

    class SquaredReLU(nn.Module):
        tensor_parallel = {"up_proj": "columns", "down_proj": "rows"}

`columns`: the outputs of a linear layer are split; `rows`: its inputs are; `heads`: a norm of each
head, whose input (B, heads, T, E) is split by head. Its sizes inside `forward` are then those of
one device: read them off the tensors, not off the config.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.gpt import GPT
from lit_llm.model.lora import ADAPTERS, LoraLinear
from lit_llm.model.mlp import SwiGLU

SPLITS: dict[type, dict[str, str]] = {
    GroupedQueryAttention: {
        "q_proj": "columns",
        "k_proj": "columns",
        "v_proj": "columns",
        "o_proj": "rows",
        "q_norm": "heads",
        "k_norm": "heads",
    },
    SwiGLU: {"gate_proj": "columns", "up_proj": "columns", "down_proj": "rows"},
}
POSITIONS = 1  # dimension T of (B, T, D): where the residual stream is split


def split_matrices(gpt: GPT, mesh: DeviceMesh) -> None:
    """Split a network over a one-dimensional mesh, in place.

    Raises:
        ValueError: a part does not say how it is split; `check_divisible` looks at the sizes.
    """
    by_position = Shard(POSITIONS)
    parallelize_module(
        gpt,
        mesh,
        {
            "embed": RowwiseParallel(input_layouts=Replicate(), output_layouts=by_position),
            "norm": SequenceParallel(sequence_dim=POSITIONS),
            "lm_head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False),
        },
    )
    for block in gpt.blocks:
        plan: dict[str, ParallelStyle] = {}
        for norm in ("norm_1", "norm_2"):
            plan[norm] = SequenceParallel(sequence_dim=POSITIONS)
        for name in ("attn", "mlp"):
            part = block.get_submodule(name)
            # Ours go on with a DTensor: the gradients of q, k and v are then added up before
            # they are exchanged. A user's part is to see ordinary tensors.
            plan[name] = _GatherPositions(use_local_output=type(part) not in SPLITS)
            plan |= {f"{name}.{inner}": style for inner, style in part_styles(part).items()}
        parallelize_module(block, mesh, plan)
        for name in ("attn", "mlp"):
            part = block.get_submodule(name)
            for inner, how in splits_of(part).items():
                if isinstance(layer := getattr(part, inner), LoraLinear):
                    _place_adapters(layer, how, mesh)
    if gpt.config.tie_embeddings:  # each was made a tensor of its own
        gpt.lm_head.weight = gpt.embed.weight
    gpt.norm.register_forward_hook(_gather_positions)
    gpt.project = gpt.padded_logits = _VocabularyParallelProjection(gpt, mesh)  # type: ignore[method-assign]


class _GatherPositions(PrepareModuleInput):
    """The first argument comes split by position and is made whole; the others stay."""

    def __init__(self, *, use_local_output: bool) -> None:
        super().__init__(
            input_layouts=(Shard(POSITIONS),),
            desired_input_layouts=(Replicate(),),
            use_local_output=use_local_output,
        )

    def _prepare_input_fn(self, inputs: Any, device_mesh: DeviceMesh) -> Any:
        first, *others = inputs
        return (*super()._prepare_input_fn((first,), device_mesh), *others)


def _place_adapters(layer: LoraLinear, how: str, mesh: DeviceMesh) -> None:
    """Split B by the layer's outputs, or A by its inputs; the other one each device has whole.

    So what lies between A and B, `rank` channels, is all that adapters of `rows` exchange.
    """
    placements = {"columns": (Replicate(), Shard(0)), "rows": (Shard(1), Replicate())}[how]
    for name, placement in zip(ADAPTERS, placements, strict=True):
        old = layer.get_parameter(name)
        whole = torch.empty(old.shape, dtype=old.dtype, device="meta")  # it has no values yet
        setattr(layer, name, nn.Parameter(distribute_tensor(whole, mesh, [placement])))


def part_styles(part: nn.Module) -> dict[str, ParallelStyle]:
    """How the layers inside an attention or MLP are split, by name; see `splits_of`."""
    return {name: STYLES[how]() for name, how in splits_of(part).items()}


def splits_of(part: nn.Module) -> dict[str, str]:
    """What a part says of its layers: columns, rows or heads, by name; of those that it has.

    Raises:
        ValueError: the part does not say it, or names what is not there.
    """
    kind = type(part).__name__
    splits = SPLITS.get(type(part)) or getattr(part, "tensor_parallel", None)
    if splits is None:
        raise ValueError(
            f"tensor parallelism does not know how to split {kind}: give the class "
            'an attribute such as\ntensor_parallel = {"up_proj": "columns", "down_proj": "rows"}, '
            "or take a trainer file without it"
        )
    there = {}
    for name, how in splits.items():
        if not hasattr(part, name):
            raise ValueError(f"{kind}.tensor_parallel: {kind} has no {name}")
        if how not in STYLES:
            raise ValueError(f"{how!r} is no way to split {kind}.{name}: use {', '.join(STYLES)}")
        if getattr(part, name) is not None:  # a norm that is turned off
            there[name] = how
    return there


STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "columns": ColwiseParallel,
    "rows": lambda: RowwiseParallel(output_layouts=Shard(POSITIONS)),
    "heads": lambda: SequenceParallel(sequence_dim=1, use_local_output=True),
}


def _gather_positions(module: nn.Module, inputs: Any, output: DTensor) -> Tensor:
    return output.redistribute(placements=[Replicate()]).to_local()


class _VocabularyParallelProjection:
    """Stands in for `GPT.project`: logits split by vocabulary, a DTensor of all padded rows.

    Ids that only pad the table have no probability, so no one has to cut them off.
    """

    def __init__(self, gpt: GPT, mesh: DeviceMesh) -> None:
        self.lm_head = gpt.lm_head
        rows = gpt.config.padded_vocab_size // mesh.size()
        first = mesh.get_local_rank() * rows
        self.real_rows = min(max(gpt.config.vocab_size - first, 0), rows)
        self.rows = rows

    def __call__(self, hidden: Tensor) -> DTensor:
        logits = self.lm_head(hidden).float()
        if self.real_rows == self.rows:
            return logits
        local = logits.to_local()
        padding = torch.arange(self.rows, device=local.device) >= self.real_rows
        local = local.masked_fill(padding, float("-inf"))
        return DTensor.from_local(local, logits.device_mesh, logits.placements, run_check=False)
