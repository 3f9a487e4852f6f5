"""LoRA: a trained network learns more by a few small matrices (Hu et al., 2021, arXiv:2106.09685).

A linear layer W of shape (out, in) stays as it is, and beside it stand A of shape (rank, in) and B
of shape (out, rank):

    y = W x + alpha / rank * B A x

B begins with zeros, so the network begins as the one that it adapts. A layer keeps the names of
its weights; the new ones are called `<layer>.lora_A` and `<layer>.lora_B`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.model.gpt import GPT
from lit_llm.model.init import stream

Value = TypeVar("Value")
ADAPTERS = ("lora_A", "lora_B")
OUTSIDE = ("embed", "lm_head", "norm")  # of the blocks


@dataclass(frozen=True, kw_only=True)
class Lora:
    """What is adapted, and by how large matrices."""

    rank: int = 8
    """Rows of A and columns of B: 4 to 64; each layer gets rank * (in + out) parameters."""

    alpha: float = 16.0
    """The adapters' share is multiplied by alpha / rank: raise both, and the rate may stay."""

    dropout: float = 0.0
    """Share of an adapter's inputs dropped in training."""

    targets: Literal["all"] | tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers of the blocks, by their last names, such as [q_proj, v_proj]; or all."""

    whole: tuple[Literal["embed", "lm_head", "norm"], ...] = ()
    """Parts outside the blocks that learn as a whole: [embed, lm_head] where the data has tokens
    that the base never met, such as the roles of a chat; their rows are noise otherwise."""

    base_dtype: Literal["bfloat16"] | None = None
    """Keep the frozen matrices of the blocks in bfloat16: half their memory and, under bf16-mixed,
    which needs it, the same numbers; null: in the dtype of the weights."""

    def __post_init__(self) -> None:
        """Reject what would learn nothing, or cannot be built."""
        if self.rank < 1:
            raise ValueError(f"lora.rank={self.rank} is no size: give 1 or more")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"lora.alpha={self.alpha} must be a number above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout} is no share: give 0 <= dropout < 1")
        if not self.targets:
            raise ValueError("lora.targets is empty, so nothing would learn: give [q_proj, v_proj]")
        for name in ("targets", "whole"):  # JSON gives lists, which have no hash
            if not isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, tuple(value))
        if unknown := sorted(set(self.whole) - set(OUTSIDE)):
            raise ValueError(f"lora.whole: there is no {unknown[0]!r}: use {', '.join(OUTSIDE)}")

    @property
    def scale(self) -> float:
        """What B A x is multiplied by."""
        return self.alpha / self.rank

    def learns(self, name: str) -> bool:
        """Whether the parameter of this name trains, and a checkpoint of the run holds it."""
        return is_adapter(name) or name.partition(".")[0] in self.whole


class LoraLinear(nn.Linear):
    """A linear layer and its adapters, whose values `init_adapters` sets.

    Args:
        linear: whose weights it takes over
        lora: rank, scale and dropout
    """

    def __init__(self, linear: nn.Linear, lora: Lora) -> None:
        nn.Module.__init__(self)  # nn.Linear's would allocate a second weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        self.scale = lora.scale
        self.dropout = lora.dropout  # no module: what splits a layer looks for weights in each
        like = linear.weight
        self.lora_A = nn.Parameter(like.new_empty(lora.rank, self.in_features))
        self.lora_B = nn.Parameter(like.new_empty(self.out_features, lora.rank))

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_A)
        return F.linear(x, self.weight, self.bias) + F.linear(low, self.lora_B) * self.scale


def add_adapters(gpt: GPT, lora: Lora) -> None:
    """Put adapters beside the layers that are to be adapted, in place; then nothing else trains.

    Raises:
        ValueError: no block has a linear layer of that name, or one shares its weight.
    """
    if gpt.config.tie_embeddings and "lm_head" in lora.whole and "embed" not in lora.whole:
        raise ValueError(
            "lora.whole has lm_head, which is the embedding here (tie_embeddings): name embed too"
        )
    layers = dict(_linear_layers(gpt))
    there = sorted({_last(name) for name in layers})
    targets = there if lora.targets == "all" else lora.targets
    if unknown := [target for target in targets if target not in there]:
        raise ValueError(
            f"lora.targets: no block has a linear layer {unknown[0]!r}: "
            f"use {', '.join(there)}, or all"
        )
    users = Counter(id(p) for _, p in gpt.named_parameters(remove_duplicate=False))
    for name, layer in layers.items():
        if _last(name) not in targets:
            continue
        if users[id(layer.weight)] > 1:
            raise ValueError(
                f"lora.targets: {name} shares its weight with another layer, so adapters of one "
                "could not be merged: leave its name out"
            )
        owner, _, attribute = name.rpartition(".")
        setattr(gpt.get_submodule(owner), attribute, LoraLinear(layer, lora))
    freeze(gpt, lora)


def freeze(gpt: nn.Module, lora: Lora) -> None:
    """Let train what a LoRA run learns, and nothing else."""
    named = list(gpt.named_parameters(remove_duplicate=False))  # a tied table has two names
    learning = {id(parameter) for name, parameter in named if lora.learns(name)}
    for _, parameter in named:
        parameter.requires_grad_(id(parameter) in learning)


def cast_frozen(gpt: GPT, dtype: torch.dtype) -> None:
    """Keep the frozen matrices of linear layers of the blocks in another dtype, in place.

    Not the embedding, whose dtype is that of the residual stream, nor the norms.
    """
    for _, layer in _linear_layers(gpt):
        layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)


@torch.no_grad()
def init_adapters(
    gpt: nn.Module, seed: int, copy: Callable[[Tensor, Tensor], object] = Tensor.copy_
) -> None:
    """Give adapters their first values, as functions of (seed, parameter name).

    A is uniform in +-1 / sqrt(in), which is `kaiming_uniform_(a=sqrt(5))`, as in peft; B is 0.

    Args:
        gpt: a network with adapters
        seed: another one, other values
        copy: puts a whole value into a parameter, which may be sharded: (parameter, value)
    """
    for name, parameter in gpt.named_parameters():
        value = torch.zeros(parameter.shape, dtype=torch.float32, device="cpu")
        if name.endswith(".lora_A"):
            bound = parameter.shape[1] ** -0.5
            value.uniform_(-bound, bound, generator=stream(name, seed))
        if is_adapter(name):
            copy(parameter, value)


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is an adapter's."""
    return _last(name) in ADAPTERS


def learned_of(state: Mapping[str, Value], lora: Lora) -> dict[str, Value]:
    """What a LoRA run learns among weights, by their names: adapters, and parts as a whole."""
    return {name: value for name, value in state.items() if lora.learns(name)}


def base_of(state: Mapping[str, Value]) -> dict[str, Value]:
    """What the base has of a network's weights: all but the adapters."""
    return {name: value for name, value in state.items() if not is_adapter(name)}


def adapted(name: str) -> tuple[str, str]:
    """The names of the adapters A and B that would belong to a weight."""
    layer = name.removesuffix(".weight")
    return f"{layer}.lora_A", f"{layer}.lora_B"


def merge(
    weights: Mapping[str, Tensor], learned: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """Weights of a network with what was learned in them, all in float32 at least.

    Args:
        weights: of the network without adapters
        learned: adapters, and weights of parts that learned as a whole, by their names
        scale: `Lora.scale`

    Raises:
        ValueError: an adapter has no weight, or lacks its counterpart.
    """
    state, left = {}, set(learned)
    for name, weight in weights.items():
        a, b = adapted(name)
        if {a, b} <= left:
            state[name] = merged(weight, learned[a], learned[b], scale)
        else:
            weight = learned.get(name, weight)
            state[name] = weight.to(torch.promote_types(weight.dtype, torch.float32))
        left -= {a, b, name}
    if left:
        raise ValueError(f"the adapters do not fit the model: {min(left)} belongs to no weight")
    return state


def merged(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale * B A, in float32 at least, whatever their dtypes are.

    Args:
        weight: W of shape (out, in)
        a: (rank, in)
        b: (out, rank)
        scale: `Lora.scale`
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.addmm(weight.to(dtype), b.to(dtype), a.to(dtype), alpha=scale)


def _linear_layers(gpt: GPT) -> Iterator[tuple[str, nn.Linear]]:
    """Linear layers of the blocks, by their names in the network."""
    for name, module in gpt.blocks.named_modules(prefix="blocks"):
        if isinstance(module, nn.Linear):
            yield name, module


def _last(name: str) -> str:
    return name.rpartition(".")[2]
