"""Saves and loads a run's checkpoint from many processes, each with its own part of the tensors.

    save_distributed(checkpoint, path, ProcessGroupRanks())
    checkpoint = load_distributed(path, gpt.state_dict(), parameters, ProcessGroupRanks())

What is loaded need not have been saved so: any checkpoint loads on any layout of devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.base import LORA, is_adapted
from lit_llm.checkpoint.bundle import (
    MODEL,
    TIED,
    TIED_TO,
    check_weights,
    lineage,
    read_meta,
    read_tokenizer,
    write_description,
)
from lit_llm.checkpoint.folder import abandon, begin, explained, finish
from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.plain import lora_from_plain
from lit_llm.checkpoint.ranks import OneRank, ProcessGroupRanks, Ranks, on_first, together
from lit_llm.checkpoint.reader import Reader
from lit_llm.checkpoint.sharded import (
    Claim,
    claims,
    local,
    nbytes,
    share_out,
    write_index,
    write_shard,
)
from lit_llm.checkpoint.training_state import (
    OPTIMIZER,
    OURS,
    PREFIX,
    parameter_and_key,
    put_optimizer_back,
    tensor_bytes,
    without_optimizer,
    without_weights,
    write_training,
)
from lit_llm.checkpoint.verification import NOTICEABLE, verified
from lit_llm.model.lora import learned_of

__all__ = [
    "OneRank",
    "ProcessGroupRanks",
    "Ranks",
    "load_distributed",
    "save_distributed",
    "verify_together",
]


def save_distributed(checkpoint: Mapping[str, Any], path: str | Path, ranks: Ranks) -> None:
    """Write a checkpoint folder from all processes, atomically; replaces a checkpoint at `path`.

    Args:
        checkpoint: Lightning's dict with "lit_llm" in it; its weights and the optimizer's state
            may be DTensors. Of all else what rank 0 has is kept.
        path: where to; the path of rank 0 counts
        ranks: the processes, all of which call this

    Raises:
        CheckpointError, ValueError, OSError: as `FolderCheckpointIO.save_checkpoint`, the same
            on every process whichever it came from. Nothing of this save is left then, and what
            stood at `path` is untouched.
    """
    target = Path(ranks.broadcast(path))
    training: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}

    def look() -> dict[str, Claim]:
        rest, named = _split(checkpoint)
        training.update(rest)
        tensors.update(named)
        return claims(tensors, ranks.rank)

    shares = share_out(together(ranks, look))
    size = tensor_bytes(training) + sum(
        nbytes(claim.box.shape, claim.dtype) for share in shares for claim in share.values()
    )
    made: list[Path] = []  # by rank 0
    known: Entries = {}

    def make() -> Path:
        made.append(begin(target, replace=True, bytes_needed=size))
        return made[0]

    def write() -> Entries:
        if not temporary.is_dir():
            raise CheckpointError(
                f"process {ranks.rank} does not see {temporary}, which process 0 has made: "
                "checkpoints go to a file system that all nodes share"
            )
        with explained(target, size):
            mine = {name: tensors[name] for name in shares[ranks.rank]}
            return write_shard(temporary, mine, ranks.rank)

    def complete() -> None:
        with explained(target, size):
            known.update(write_index(temporary, shares))
            known.update(write_training(temporary, training))
            bundle, tokenizer = checkpoint[OURS]["bundle"], checkpoint[OURS]["tokenizer"]
            known.update(write_description(temporary, bundle, tokenizer))
            finish(temporary, target, known)

    try:
        temporary = on_first(ranks, make)
        for entries in together(ranks, write):
            known.update(entries)
        on_first(ranks, complete)
    except BaseException:
        for folder in made:
            abandon(folder)
        raise


def load_distributed(
    path: str | Path, weights: Mapping[str, Tensor], parameters: Sequence[Tensor], ranks: Ranks
) -> dict[str, Any]:
    """Verify a checkpoint of any kind and give each process its part of Lightning's dict.

    Args:
        path: the folder itself; `lit_llm.checkpoint.find.resolve` finds it
        weights: the network's `state_dict()`, of a LoRA run the adapters of it; each weight is
            placed as it is there
        parameters: the optimizer's, in the order of its groups; its state is placed as they are.
            Empty where nothing is trained: no state of the optimizer is read then.
        ranks: the processes, all of which call this

    Raises:
        CheckpointError, ValueError: a file is damaged, or the weights do not fit the model; the
            same on every process.
    """
    folder = Path(ranks.broadcast(path))
    checkpoint: dict[str, Any] = {}
    with verified(folder, ranks):
        together(ranks, lambda: checkpoint.update(_read(folder, weights, parameters)))
    return checkpoint


def _split(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What goes to training.ckpt, and the tensors that go to shards."""
    if OURS not in checkpoint:
        raise ValueError(
            "a module that puts nothing under checkpoint['lit_llm'] cannot be saved in shards: "
            "see docs/checkpoints.md, or take trainer.strategy ddp"
        )
    training, weights = without_weights(checkpoint)
    training, optimizer = without_optimizer(training)
    bundle = checkpoint[OURS]["bundle"]
    if is_adapted(bundle):
        weights = learned_of(weights, lora_from_plain(bundle[LORA]))
    if bundle["model"]["tie_embeddings"] and TIED in weights:
        tied = weights.pop(TIED)
        assert torch.equal(local(tied), local(weights[TIED_TO])), "tied embeddings came apart"
    named = {MODEL + name: tensor for name, tensor in weights.items()}
    named.update({OPTIMIZER + name: tensor for name, tensor in optimizer.items()})
    return training, named


def verify_together(folder: Path, ranks: Ranks) -> None:
    """As `manifest.verify`, each process reading some of the files; the base of adapters too."""
    for each in together(ranks, lambda: lineage(folder))[0]:
        with verified(each, ranks, said_from=NOTICEABLE):
            pass


def _read(
    folder: Path, weights: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> dict[str, Any]:
    reader = Reader(folder, apart=True)
    checkpoint = reader.training()
    check_weights(weights, reader.skeleton())
    state = {PREFIX + name: reader.read_like(MODEL + name, w) for name, w in weights.items()}
    checkpoint["state_dict"] = {**state, **checkpoint["state_dict"]}
    checkpoint[OURS] = {"bundle": read_meta(folder), "tokenizer": read_tokenizer(folder)}
    if parameters:
        put_optimizer_back(checkpoint, _read_optimizer(reader, parameters))
    return checkpoint


def _read_optimizer(reader: Reader, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    tensors = {}
    for name in reader.names:
        if not name.startswith(OPTIMIZER):
            continue
        short = name.removeprefix(OPTIMIZER)
        number, _ = parameter_and_key(short)
        if number >= len(parameters):
            raise ValueError(
                f"{reader.folder} has the optimizer's state of parameter {number}, "
                f"but this optimizer has {len(parameters)}: start a new run with model.init_from"
            )
        like = parameters[number]
        alike = reader.describe(name).shape == like.shape
        tensors[short] = reader.read_like(name, like) if alike else reader.read(name)
    return tensors
