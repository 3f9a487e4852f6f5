"""Checkpoints to be injured: what a run saves, in both forms, and how commands read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.find import resolve
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.sharded_io import OneRank, load_distributed, save_distributed

FORMS = ("plain", "sharded")


def save(checkpoint: dict[str, Any], path: Path, form: str) -> None:
    """Write Lightning's dict as the strategies do."""
    if form == "plain":
        FolderCheckpointIO().save_checkpoint(checkpoint, path)
    else:
        save_distributed(checkpoint, path, OneRank())


def resume(folder: Path) -> dict[str, Any]:
    """As `fit` reads a checkpoint."""
    return FolderCheckpointIO().load_checkpoint(folder)


def resume_sharded(folder: Path, gpt: nn.Module) -> dict[str, Any]:
    """As `fit` reads it under FSDP2 or tensor parallelism, here of one process."""
    return load_distributed(folder, gpt.state_dict(), list(gpt.parameters()), OneRank())


def predict(folder: Path) -> Any:
    """As `predict` reads it."""
    return load_model(resolve(folder))


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of a tree, by their place in it."""
    if isinstance(value, Tensor):
        return {name: value}
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    return {k: v for key, item in pairs for k, v in tensors(item, f"{name}.{key}").items()}


def assert_same(loaded: dict[str, Any], saved: dict[str, Any]) -> None:
    """All that a run needs came back, bit for bit."""
    one, other = tensors(loaded), tensors(saved)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert loaded["global_step"] == saved["global_step"]


def files(folder: Path) -> list[Path]:
    """All files of a folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


INJURIES = ("flip", "cut", "missing", "swapped")


def injure(path: Path, injury: str, draw: Random, other: Path) -> None:
    """Damage a file: one bit, its end, all of it, or by the content of another file."""
    content = path.read_bytes()
    if injury == "flip":
        flipped = bytearray(content)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
    elif injury == "cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    elif injury == "missing":
        path.unlink()
    else:
        shutil.copyfile(other, path)
    assert not path.exists() or path.read_bytes() != content
