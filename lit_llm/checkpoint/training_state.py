"""training.ckpt: what a run needs to go on besides its model, and how the two are kept apart."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from lit_llm.checkpoint.hashed import Entries, HashedFile
from lit_llm.checkpoint.manifest import CheckpointError, unreadable

TRAINING = "training.ckpt"
OURS = "lit_llm"  # key of Lightning's dict: {"bundle": <for bundle.json>, "tokenizer": ...}
PREFIX = "gpt."  # the LightningModule's attribute that holds the network
OPTIMIZERS = "optimizer_states"
OPTIMIZER = (
    "optimizer."  # begins the names of its tensors in a sharded checkpoint: optimizer.ID.KEY
)

_EMPTY = torch.empty(0)


def without_weights(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split Lightning's dict into what training.ckpt holds and the network's weights."""
    state = checkpoint["state_dict"]
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX)
    }
    training = {key: value for key, value in checkpoint.items() if key != OURS}
    training["state_dict"] = {
        name: value for name, value in state.items() if not name.startswith(PREFIX)
    }
    return training, weights


def without_optimizer(training: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Split off the tensors of the optimizer's state, named ID.KEY.

    ID is the parameter's in `Optimizer.state_dict()`: its position in the parameter groups, which
    is a function of the network alone and so means the same under every strategy.
    """
    if not training.get(OPTIMIZERS):  # saved without: the weights only
        return dict(training), {}
    if len(training[OPTIMIZERS]) > 1:
        raise ValueError(
            f"a sharded checkpoint holds one optimizer, got {len(training[OPTIMIZERS])}: "
            "make them one, with parameter groups"
        )
    (optimizer,) = training[OPTIMIZERS]
    tensors: dict[str, Tensor] = {}
    rest: dict[int, dict[str, Any]] = {}
    for number, entries in optimizer["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            else:
                rest.setdefault(number, {})[key] = value
    return {**training, OPTIMIZERS: [{**optimizer, "state": rest}]}, tensors


def put_optimizer_back(training: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `without_optimizer`, in place."""
    for name, tensor in tensors.items():
        number, key = parameter_and_key(name)
        training[OPTIMIZERS][0]["state"].setdefault(number, {})[key] = tensor


def parameter_and_key(name: str) -> tuple[int, str]:
    """Split ID.KEY."""
    number, _, key = name.partition(".")
    return int(number), key


def write_training(folder: Path, training: Mapping[str, Any]) -> Entries:
    """Write training.ckpt; returns the manifest's entry of it.

    Raises:
        ValueError: something in it could not be loaded again with `weights_only=True`.
    """
    refuse_unsafe(training)
    with HashedFile(folder / TRAINING) as file:
        torch.save(dict(training), cast(Any, file))
    return {TRAINING: file.entry}


def refuse_unsafe(training: Mapping[str, Any]) -> None:
    """Refuse what `weights_only=True` would not load again.

    Raises:
        ValueError: names the classes and functions that it would have to call.
    """
    small = io.BytesIO()
    torch.save(_without_content(dict(training)), small)
    small.seek(0)
    if unsafe := get_unsafe_globals_in_checkpoint(small):
        raise ValueError(
            f"the state of training holds {', '.join(sorted(unsafe))}, which cannot be loaded "
            "safely again:\nkeep plain values and tensors in hyperparameters and in state_dict() "
            "of callbacks, data and schedules"
        )


def _without_content(value: Any) -> Any:
    """The same tree of plain containers with one empty tensor in place of each plain tensor."""
    if type(value) is Tensor:
        return _EMPTY
    if type(value) is dict:
        return {key: _without_content(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_content(item) for item in value)
    return value


def read_training(folder: Path, *, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Read training.ckpt.

    Args:
        folder: a checkpoint, verified
        map_location: as in torch.load
        mmap: read a tensor's bytes when they are used; they then are the file's own

    Raises:
        CheckpointError: there is none, or it holds what must not be called.
    """
    if not (folder / TRAINING).is_file():
        raise CheckpointError(
            f"{folder} holds weights but no {TRAINING}, so a run cannot go on from it: "
            "start a new one with model.init_from"
        )
    path = folder / TRAINING
    try:
        training = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except OSError:
        raise
    except Exception as error:  # of pickle, zipfile or torch: a hash that agrees is no good will
        raise unreadable(path, error) from error
    if not isinstance(training, dict):
        raise unreadable(path, TypeError(f"it holds a {type(training).__name__}"))
    return training


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in a tree of dicts and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(tensor_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(tensor_bytes(item) for item in value)
    return 0
