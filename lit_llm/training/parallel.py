"""What is done to a network from outside to train it on many devices and in less memory.

The network's own files know nothing of this. The order matters: split matrices (tensor
parallelism), then checkpoint activations, then compile, then shard (FSDP2), and only then give
the parameters memory, so that no device ever holds more than its part.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.utils.checkpoint import checkpoint

from lit_llm.model import tiled_attention
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.lora import Lora, add_adapters, cast_frozen, freeze
from lit_llm.training.divisible import check_divisible
from lit_llm.training.tensor_parallel import split_matrices

REPLICATE, SHARD, TENSOR = "replicate", "shard", "tensor"


@dataclass(frozen=True)
class Sharding:
    """How a network is spread over devices."""

    mesh: DeviceMesh
    """Dimensions replicate x shard x tensor; the first two together see different data."""

    device: torch.device
    """This process's own."""

    param_dtype: torch.dtype | None = None
    """What FSDP2 gathers and computes in; None: the parameters' own dtype. Gradients are then
    reduced in float32."""


def build(
    config: GPTConfig,
    sharding: Sharding | None = None,
    *,
    lora: Lora | None = None,
    activation_checkpointing: int = 0,
    compile: bool = False,
) -> GPT:
    """Build a network, ready to be given weights.

    With a sharding no parameter is ever whole on one device: a network larger than that fits.

    Args:
        config: the network
        sharding: how it is spread; None: it is whole
        lora: adapters that train in its place
        activation_checkpointing: every how many blocks only the input is kept; 0: none
        compile: compile each block

    Raises:
        ValueError: the network cannot be split as asked for.
    """
    tensor = sharding.mesh[TENSOR].size() if sharding else 1
    if tensor > 1:
        check_divisible(config, tensor, compile=compile, lora=lora)
    with torch.device("meta") if sharding else nullcontext():
        gpt = GPT(config)
        if lora is not None:
            add_adapters(gpt, lora)
    if lora is not None and lora.base_dtype is not None:
        cast_frozen(gpt, getattr(torch, lora.base_dtype))
    if sharding and tensor > 1:
        split_matrices(gpt, sharding.mesh[TENSOR])
        if lora is not None:
            freeze(gpt, lora)  # what was split are new parameters
    checkpoint_activations(gpt, activation_checkpointing)
    if compile:
        compile_blocks(gpt)
    if sharding:
        shard(gpt, sharding)
        allocate(gpt, sharding.device)
    return gpt


def checkpoint_activations(gpt: GPT, every: int) -> None:
    """Keep only the inputs of every n-th block (Chen et al., 2016, arXiv:1604.06174).

    What is inside is computed again in the backward pass. 0 leaves all blocks as they are.
    """
    for number, block in enumerate(gpt.blocks):
        if every and number % every == 0:
            # Replacing `forward` keeps the parameters' names, which a wrapper module would change.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(gpt: GPT) -> None:
    """Compile what each block computes; blocks are alike, so one compilation serves all of them.

    `forward` and not the module: torch.compile(block) would rename every parameter, and
    block.compile() would trace FSDP2's hooks.
    """
    if tiled_attention.CPU_IS_SUITED:
        tiled_attention.is_there()  # compiles its library, which torch.compile could not
    for block in gpt.blocks:
        block.forward = torch.compile(block.forward)


def shard(gpt: GPT, sharding: Sharding) -> None:
    """Shard parameters, gradients and optimizer state over devices, block by block.

    FSDP2 (Zhao et al., 2023, arXiv:2304.11277) gathers one block at a time. Embedding, final norm
    and head stay gathered from the forward to the backward pass. With `replicate` > 1 there are
    several sharded copies whose gradients are averaged (HSDP).
    """
    mesh = sharding.mesh
    alone = mesh[SHARD].size() * mesh[REPLICATE].size() == 1
    if alone and mesh[TENSOR].size() > 1 and sharding.param_dtype is None:
        return  # the group that splits the matrices holds all of them; FSDP2 would only copy
    among = mesh[REPLICATE, SHARD] if mesh[REPLICATE].size() > 1 else mesh[SHARD]
    precision = MixedPrecisionPolicy(
        param_dtype=sharding.param_dtype,
        reduce_dtype=torch.float32 if sharding.param_dtype else None,
        cast_forward_inputs=False,  # RoPE's tables are inputs of a block and stay float32
    )
    for block in gpt.blocks:
        fully_shard(block, mesh=among, mp_policy=precision)
    fully_shard(gpt, mesh=among, mp_policy=precision)


def allocate(gpt: GPT, device: torch.device) -> None:
    """Give the parameters of a skeleton memory; matrices are unset, the rest begins as it should.

    Raises:
        ValueError: a module holds vectors or buffers and cannot say what they begin with.
    """
    gpt.to_empty(device=device)
    if gpt.config.tie_embeddings:
        gpt.lm_head.weight = gpt.embed.weight
    for module in gpt.modules():
        is_vector = [parameter.dim() < 2 for parameter in module.parameters(recurse=False)]
        has_buffers = next(module.buffers(recurse=False), None) is not None
        if isinstance(module, GPT) or not (any(is_vector) or has_buffers):
            continue  # matrices are initialized by their names; GPT tabulates RoPE again by itself
        reset: Callable[[], object] | None = getattr(module, "reset_parameters", None)
        if reset is None:
            raise ValueError(
                f"{type(module).__name__} has parameters that are no matrices, or buffers, and a "
                "sharded network is built without values:\ngive it a method reset_parameters() "
                "that sets them, as torch.nn's modules have"
            )
        reset()


@torch.no_grad()
def copy_full(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into a parameter, of which this device may hold only a part."""
    if not isinstance(target, DTensor):
        target.copy_(value)
        return
    mesh = target.device_mesh
    everywhere = [Replicate()] * mesh.ndim
    whole = DTensor.from_local(value.to(target.device), mesh, everywhere, run_check=False)
    target.copy_(whole.redistribute(placements=target.placements))  # cuts, sends nothing


def each_fsdp_module(model: nn.Module, call: Callable) -> None:
    """Call a function with every module that FSDP2 has sharded."""
    for module in model.modules():
        if hasattr(module, "set_requires_gradient_sync"):
            call(module)
