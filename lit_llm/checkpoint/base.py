"""The checkpoint that adapters belong to: how theirs names it, finds it and knows it again.

A LoRA run's checkpoint holds adapters alone. Its bundle.json says whose weights they adapt:

    "base": {"path": "../../pretrain/step-00000500", "absolute": "/data/checkpoints/...",
             "sha256": "..."}

`path` is relative to the checkpoint's own folder, so a tree of runs that is moved or copied as a
whole stays whole; `absolute` is where the base was when the adapters were trained, for a checkpoint
that is moved alone. `sha256` is that of the base's model.safetensors. Other weights under the same
path are never taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_llm.checkpoint.manifest import CheckpointError, listed

ADAPTERS = "adapters.safetensors"
LORA, BASE = "lora", "base"  # keys of bundle.json


def is_adapted(meta: Mapping[str, Any]) -> bool:
    """Whether a checkpoint with this description holds adapters, and needs its base."""
    return meta.get(LORA) is not None


def describe_base(folder: Path) -> dict[str, str]:
    """Describe the checkpoint that adapters are to belong to, but for its relative path."""
    return {"absolute": str(folder.resolve()), "sha256": fingerprint(folder)}


def relative_to(folder: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The same with the path that leads there from a checkpoint's folder."""
    try:
        path = os.path.relpath(base["absolute"], folder.resolve())
    except ValueError:  # another drive of Windows
        return dict(base)
    return {"path": Path(path).as_posix(), **base}


def find_base(folder: Path, meta: Mapping[str, Any], given: str | Path | None = None) -> Path:
    """Find the checkpoint that adapters belong to; its content is verified when it is read.

    Args:
        folder: the adapters' checkpoint
        meta: its bundle.json
        given: a further place to look, such as `model.init_from`

    Raises:
        CheckpointError: it is not there, or holds other weights.
    """
    base = meta[BASE]
    places = [folder.resolve() / base["path"]] if "path" in base else []
    places += [Path(base["absolute"]), *([Path(given)] if given is not None else [])]
    changed = None
    for place in map(_tidy, places):
        try:
            found = fingerprint(place)
        except CheckpointError:  # nothing is there, or half of a copy: the next place may do
            continue
        if found == base["sha256"]:
            return place
        changed = changed or (place, found)
    if changed is None:
        raise CheckpointError(
            f"{folder} holds adapters, and their base is neither at {_tidy(places[0])} nor at "
            f"{base['absolute']}: put it back there"
        )
    raise CheckpointError(
        f"{folder} holds adapters of other weights than those of {changed[0]}\n"
        f"(SHA-256 {changed[1][:12]}..., they belong to {base['sha256'][:12]}...): "
        "put their own base back there"
    )


def refuse_other_base(meta: Mapping[str, Any], base: Path) -> None:
    """Refuse adapters that were trained over other weights than those that they would meet.

    Args:
        meta: bundle.json of the adapters
        base: the checkpoint whose weights are in place

    Raises:
        CheckpointError: they do not belong together.
    """
    if not is_adapted(meta):
        raise CheckpointError(
            "this checkpoint holds whole weights and no adapters: start a LoRA run from it by "
            "model.init_from, or continue it without model.lora"
        )
    if fingerprint(base) != meta[BASE]["sha256"]:
        raise CheckpointError(
            f"these adapters belong to other weights than those of {base}: give the checkpoint "
            f"that they were trained over, {meta[BASE]['absolute']}"
        )


def fingerprint(folder: Path) -> str:
    """What the weights of a checkpoint are known by: the SHA-256 of model.safetensors.

    Of shards, and of adapters that have a base of their own, it is that of all hashes together.

    Raises:
        CheckpointError: the folder is no complete checkpoint.
    """
    files = listed(folder)
    names = sorted(name for name in files if name.endswith(".safetensors"))
    if not names:
        raise CheckpointError(f"{folder} holds no weights: give a checkpoint that does")
    if names == ["model.safetensors"]:
        return files[names[0]]["sha256"]
    names += [name for name in ("shards.json", "bundle.json") if name in files]
    text = json.dumps([[name, files[name]["sha256"]] for name in names])
    return hashlib.sha256(text.encode()).hexdigest()


def _tidy(path: Path) -> Path:
    """Without `..`, and as short as it can be said from here."""
    path = Path(os.path.normpath(path))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
