"""The Trainer's plug-in: checkpoints as folders, a bundle plus the state of training.

    trainer = L.Trainer(plugins=[FolderCheckpointIO()])

What LitLLM puts under "lit_llm" and the weights named "gpt.*" become the bundle; all else that
Lightning saves (optimizers, schedules, loops, callbacks) goes to training.ckpt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from lit_llm.checkpoint.bundle import DESCRIPTION, load_bundle, write_bundle
from lit_llm.checkpoint.folder import remove_folder, write_folder
from lit_llm.checkpoint.manifest import CheckpointError, verify

TRAINING = "training.ckpt"
OURS = "lit_llm"  # key of the checkpoint dict: {"bundle": <for bundle.json>, "tokenizer": ...}
PREFIX = "gpt."  # the LightningModule's attribute that holds the network


class FolderCheckpointIO(CheckpointIO):
    """Saves, loads and removes checkpoint folders; see docs/checkpoints.md."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write Lightning's checkpoint as a folder, atomically; replaces a checkpoint at `path`.

        Raises:
            ValueError: something in it could not be loaded again with `weights_only=True`, such
                as a NumPy value in a callback's state; better at the first save than at a resume.
            OSError: the disk is full.
        """
        if storage_options is not None:
            raise ValueError(f"storage_options={storage_options} mean nothing to a local folder")
        ours = checkpoint.get(OURS)
        weights, training = {}, {key: value for key, value in checkpoint.items() if key != OURS}
        if ours is not None:
            state = checkpoint["state_dict"]
            weights = {
                name.removeprefix(PREFIX): tensor
                for name, tensor in state.items()
                if name.startswith(PREFIX)
            }
            others = {name: value for name, value in state.items() if not name.startswith(PREFIX)}
            training["state_dict"] = others

        def write(folder: Path) -> None:
            torch.save(training, folder / TRAINING)
            _refuse_unsafe(folder / TRAINING)
            if ours is not None:
                write_bundle(folder, ours["bundle"], weights, ours["tokenizer"])

        size = _tensor_bytes(training) + _tensor_bytes(weights)
        write_folder(Path(path), write, replace=True, bytes_needed=size)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | torch.device | str | dict | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Verify a checkpoint folder and put Lightning's dict together again.

        Args:
            path: the folder itself; `lit_llm.checkpoint.find.resolve` finds it
            map_location: as in torch.load, for the state of training; None is the CPU. The
                weights come on the CPU: `load_state_dict` copies them to where the model is.
            weights_only: always True, whatever is asked: no checkpoint of ours needs otherwise

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        folder = Path(path)
        verify(folder)
        if not (folder / TRAINING).is_file():
            raise CheckpointError(
                f"{folder} holds weights but no {TRAINING}, so a run cannot go on from it: "
                "start a new one with model.init_from"
            )
        checkpoint = torch.load(
            folder / TRAINING, map_location=map_location or "cpu", weights_only=True
        )
        if (folder / DESCRIPTION).is_file():
            bundle = load_bundle(folder, verify=False)
            weights = {PREFIX + name: tensor for name, tensor in bundle.state.items()}
            checkpoint["state_dict"] = {**weights, **checkpoint["state_dict"]}
            checkpoint[OURS] = {"bundle": bundle.meta, "tokenizer": bundle.tokenizer}
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint folder, or a link to one; what is not there needs no removal."""
        folder = Path(path)
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            remove_folder(folder)


def _refuse_unsafe(path: Path) -> None:
    """Reads the pickle's opcodes only, no tensor."""
    if unsafe := get_unsafe_globals_in_checkpoint(path):
        raise ValueError(
            f"the state of training holds {', '.join(sorted(unsafe))}, which cannot be loaded "
            "safely again:\nkeep plain values and tensors in hyperparameters and in state_dict() "
            "of callbacks, data and schedules"
        )


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(_tensor_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_tensor_bytes(item) for item in value)
    return 0
