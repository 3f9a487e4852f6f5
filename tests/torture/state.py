"""Reading what a run ended with, apart from the code that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lit_llm.checkpoint.folder import is_unfinished
from lit_llm.checkpoint.manifest import verify


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Everything in a plain checkpoint that decides how training goes on."""
    training = torch.load(checkpoint / "training.ckpt", weights_only=True)
    return {
        "weights": load_file(checkpoint / "model.safetensors"),
        "optimizer": training["optimizer_states"],
        "schedule": training["lr_schedulers"],
        "step": training["global_step"],
    }


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """Compare two trees of dicts, lists, tensors and plain values, tensors bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        assert torch.equal(one, other), f"{where}: {(one - other).abs().max():.3g} apart"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    else:
        assert one == other, f"{where}: {one} is not {other}"


def assert_all_visible_are_whole(run: Path) -> None:
    """Every folder that bears the name of a checkpoint is complete, undamaged and loads."""
    for folder in run.glob("*step-*"):
        if not is_unfinished(folder):
            verify(folder)
            assert state_of(folder)["step"] == int(folder.name.removeprefix("step-"))


def leftovers(*roots: Path) -> list[Path]:
    """What a killed process left half-done."""
    marks = (".tmp", ".old-", ".lock.tmp")
    return [
        path
        for root in roots
        for path in root.rglob("*")
        if any(mark in path.name for mark in marks)
    ]
