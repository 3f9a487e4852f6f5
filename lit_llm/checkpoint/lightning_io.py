"""The Trainer's plug-in: checkpoints as folders, a bundle plus the state of training.

    trainer = L.Trainer(plugins=[FolderCheckpointIO()])

What LitLLM puts under "lit_llm" and the weights named "gpt.*" become the bundle; all else that
Lightning saves (optimizers, schedules, loops, callbacks) goes to training.ckpt.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from lit_llm.checkpoint.bundle import (
    DESCRIPTION,
    own_weights,
    read_meta,
    read_tokenizer,
    write_bundle,
)
from lit_llm.checkpoint.folder import remove_folder, write_folder
from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.ranks import OneRank, ProcessGroupRanks
from lit_llm.checkpoint.sharded import Shards, is_sharded
from lit_llm.checkpoint.training_state import (
    OPTIMIZER,
    OURS,
    PREFIX,
    put_optimizer_back,
    read_training,
    tensor_bytes,
    without_weights,
    write_training,
)
from lit_llm.checkpoint.verification import verified


class FolderCheckpointIO(CheckpointIO):
    """Saves, loads and removes checkpoint folders; see docs/checkpoints.md."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write Lightning's checkpoint as a folder, atomically; replaces a checkpoint at `path`.

        Raises:
            ValueError: something in it could not be loaded again with `weights_only=True`, such
                as a NumPy value in a callback's state; better at the first save than at a resume.
            SaveFailed: the disk is full, or refuses something else.
        """
        if storage_options is not None:
            raise ValueError(f"storage_options={storage_options} mean nothing to a local folder")
        ours = checkpoint.get(OURS)
        training, weights = (dict(checkpoint), {}) if ours is None else without_weights(checkpoint)

        def write(folder: Path) -> Entries:
            entries = write_training(folder, training)
            if ours is not None:
                entries |= write_bundle(folder, ours["bundle"], weights, ours["tokenizer"])
            return entries

        size = tensor_bytes(training) + tensor_bytes(weights)
        write_folder(Path(path), write, replace=True, bytes_needed=size)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | torch.device | str | dict | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Verify a checkpoint folder and put Lightning's dict together again.

        Where there are several processes all of them call this, and each verifies some files.

        Args:
            path: the folder itself, of rank 0; `lit_llm.checkpoint.find.resolve` finds it
            map_location: as in torch.load, for the state of training; None is the CPU. The
                weights come on the CPU: `load_state_dict` copies them to where the model is.
            weights_only: always True, whatever is asked: no checkpoint of ours needs otherwise

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        ranks = ProcessGroupRanks() if dist.is_available() and dist.is_initialized() else OneRank()
        folder = Path(ranks.broadcast(path))
        with verified(folder, ranks):
            return _read(folder, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint folder, or a link to one; what is not there needs no removal.

        Warns if that fails: an old checkpoint more is no reason to end a run.
        """
        folder = Path(path)
        try:
            if folder.is_symlink():
                folder.unlink()
            elif folder.exists():
                remove_folder(folder)
        except OSError as error:
            warnings.warn(
                f"the old checkpoint {folder} cannot be removed and takes up space: {error}",
                stacklevel=2,
            )


def _read(folder: Path, map_location: Any) -> dict[str, Any]:
    checkpoint = read_training(folder, map_location=map_location)
    if is_sharded(folder):
        put_optimizer_back(checkpoint, Shards(folder).read_all(OPTIMIZER))
    if (folder / DESCRIPTION).is_file():
        meta = read_meta(folder)
        weights = {PREFIX + name: tensor for name, tensor in own_weights(folder, meta).items()}
        checkpoint["state_dict"] = {**weights, **checkpoint["state_dict"]}
        checkpoint[OURS] = {"bundle": meta, "tokenizer": read_tokenizer(folder)}
    return checkpoint
