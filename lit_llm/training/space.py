"""Whether a run's checkpoints fit on the disk, asked before the first step.

A save asks as well, but the first one comes after minutes or hours of training, and two
checkpoints stand beside each other whenever one replaces another.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_llm.checkpoint.find import checkpoints
from lit_llm.checkpoint.folder import file_size_limit, free_bytes
from lit_llm.checkpoint.manifest import CheckpointError, listed
from lit_llm.optim.known import is_known

TWO = 2  # the one to go on from, and the next one while it is written
TWO_MOMENTS = 2  # AdamW's


def check_space(
    folder: Path, module: nn.Module, optimizers: Sequence[Optimizer], *, files: int = 1
) -> None:
    """Refuse to start a run whose checkpoints would not fit.

    Args:
        folder: where checkpoints go; those that are there already count
        module: what is trained; the sizes of DTensors are those of the whole
        optimizers: of which the state is saved too
        files: over which the tensors of each kind are spread: one per process if sharded

    Raises:
        ValueError: two checkpoints do not fit on the disk, or a file would be larger than this
            process may write.
    """
    weights = _bytes(module.state_dict(keep_vars=True).values())
    states = sum(map(optimizer_bytes, optimizers))
    needed = weights + states
    room = folder
    while not room.exists():
        room = room.parent
    there = _held(folder)
    free = free_bytes(room)
    missing = max(needed, TWO * needed - there)  # one more in any case
    if free < missing:
        beside = f" beside the {there:,} that are there" if there else ""
        raise ValueError(
            f"two checkpoints do not fit into {folder}: they need {missing:,} bytes{beside} "
            f"({needed:,} each), {free:,} are free.\n"
            "Free some space, or let --runs_dir name a larger disk"
        )
    # Weights and state are two files, or share the files of shards.
    largest = max(weights, states) if files == 1 else needed / files
    if largest > (limit := file_size_limit()):
        raise ValueError(
            f"a checkpoint in {folder} has a file of {int(largest):,} bytes, but this process may "
            f"write no more than {limit:,} to one:\nraise the limit (ulimit -f unlimited)"
        )


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Bytes of an optimizer's state after its first step.

    PyTorch's rules and our own run on tensors without memory, so that no table of them goes stale.
    Another's rule might ask the other processes for something, or keep what it was given: its state
    is what it holds already, or else as large as AdamW's, two moments for each parameter.
    """
    held = _state_bytes(optimizer.state)  # some make theirs when they are built
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if is_known(type(optimizer)):
        return max(held, _after_a_step(optimizer))
    complete = all(optimizer.state.get(parameter) for parameter in trained)
    return held if complete else max(held, TWO_MOMENTS * _bytes(trained))


def _after_a_step(optimizer: Optimizer) -> int:
    """Bytes that a rule which keeps to its own process makes in its first step."""
    twins: dict[Tensor, Tensor] = {}
    groups = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # the whole of a DTensor: `shape` is the whole's
            twin = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
            if parameter.requires_grad:
                twin.requires_grad_().grad = torch.empty_like(twin)
            twins[parameter] = twin
        kernels = dict.fromkeys(group.keys() & {"fused", "foreach"}, False)  # need a device
        groups.append({**group, **kernels, "params": [twins[p] for p in group["params"]]})
    stand_in: Any = object.__new__(type(optimizer))
    containers = (dict, list, set)  # what the rule puts into one must not be found by the real one
    for name, value in optimizer.__dict__.items():
        stand_in.__dict__[name] = copy.copy(value) if isinstance(value, containers) else value
    stand_in.param_groups, stand_in.state = groups, defaultdict(dict)
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        setattr(stand_in, hooks, OrderedDict())
    # A rule that looks at a number or asks for its kernel fails, after it has made its state.
    with contextlib.suppress(Exception), torch.no_grad():
        type(optimizer).step(stand_in)
    made = _state_bytes(stand_in.state)
    trained = [twin for twin in twins.values() if twin.requires_grad]
    if made and len(stand_in.state) < len(trained):  # it failed half-way: as much as AdamW's
        made = max(made, TWO_MOMENTS * _bytes(trained))
    return made


def _state_bytes(state: Mapping[Any, Mapping[str, Any]]) -> int:
    return _bytes(v for values in state.values() for v in values.values() if isinstance(v, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of each tensor once, whatever its names; of a DTensor the whole."""
    once = {id(tensor): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.itemsize for tensor in once.values())


def _held(folder: Path) -> int:
    """Bytes of the checkpoints that a folder has."""
    total = 0
    for checkpoint in checkpoints(folder):
        with contextlib.suppress(CheckpointError, OSError):
            total += sum(file["bytes"] for file in listed(checkpoint).values())
    return total
