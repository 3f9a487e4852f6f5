"""One file of many: a sharded checkpoint as a single process would have saved it."""

from __future__ import annotations

import shutil
from pathlib import Path

from lit_llm.checkpoint.base import is_adapted
from lit_llm.checkpoint.bundle import MODEL, WEIGHTS, read_meta
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.manifest import damage, listed, raise_damaged
from lit_llm.checkpoint.merge import merge_adapters
from lit_llm.checkpoint.safetensors_file import write_tensors
from lit_llm.checkpoint.sharded import INDEX, Shards, is_sharded
from lit_llm.checkpoint.training_state import (
    OPTIMIZER,
    TRAINING,
    put_optimizer_back,
    read_training,
    write_training,
)
from lit_llm.checkpoint.verification import see_whole


def consolidate(source: Path, target: Path) -> list[str]:
    """Write a checkpoint again as one of whole files that needs nothing beside it.

    Shards are put together, bit for bit the same tensors; this needs memory for the weights, and
    then for the state of the optimizer, as one process that trains does. Adapters are merged into
    their base (`lit_llm.checkpoint.merge`). Any other checkpoint is copied.

    Args:
        source: a checkpoint, as `lit_llm.checkpoint.find.resolve` gives it
        target: where to; nothing may stand there

    Returns:
        What the user should know.

    Raises:
        CheckpointError: the source is damaged or holds no model, or something stands at `target`.
        OSError: the disk is full; nothing is left then.
    """
    if is_adapted(read_meta(source)):
        return merge_adapters(source, target)
    see_whole(source)
    files = listed(source)
    shards = Shards(source) if is_sharded(source) else None
    rewritten = {INDEX, TRAINING, *shards.files} if shards else set()
    copied = {name: file for name, file in files.items() if name not in rewritten}

    def write(folder: Path) -> Entries:
        for name in copied:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)
        if wrong := damage(folder, copied):
            raise_damaged(folder, wrong)
        if shards is None:
            return {}
        weights = write_tensors(folder / WEIGHTS, shards.read_all(MODEL))
        training = read_training(source)
        put_optimizer_back(training, shards.read_all(OPTIMIZER))
        return {WEIGHTS: weights, **write_training(folder, training)}

    write_folder(target, write, bytes_needed=sum(file["bytes"] for file in files.values()))
    return []
