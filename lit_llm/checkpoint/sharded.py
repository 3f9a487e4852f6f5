"""Tensors that many processes hold in pieces: which process writes which, and the way back.

Every process writes what it holds to one safetensors file, and `shards.json` says which box of
which tensor lies where. A reader cuts any other box out of them, so what was saved on one layout
of devices loads on every other:

    {"format": 1, "tensors": {
        "model.embed.weight": {"shape": [257, 64], "dtype": "float32", "chunks": [
            {"file": "shard-00000.safetensors", "offset": [0, 0], "shape": [129, 64]}, ...]}, ...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_llm.checkpoint.boxes import Box, covers, held_box, is_spread
from lit_llm.checkpoint.hashed import Entries, write_bytes
from lit_llm.checkpoint.manifest import CheckpointError, LaterFormat, unreadable
from lit_llm.checkpoint.safetensors_file import write_tensors

FORMAT = 1  # of shards.json; raised when an older reader would misread it
INDEX = "shards.json"
NO_JSON = (json.JSONDecodeError, UnicodeDecodeError)


class Claim(NamedTuple):
    """What one process holds of a tensor, and the tensor's own shape and dtype."""

    shape: tuple[int, ...]
    dtype: str
    box: Box


def file_name(rank: int) -> str:
    """The file that a process writes."""
    return f"shard-{rank:05d}.safetensors"


def claims(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Claim]:
    """What this process could write. Whole plain tensors are alike everywhere: the first's."""
    boxes = {
        name: held_box(tensor) for name, tensor in tensors.items() if rank == 0 or is_spread(tensor)
    }
    return {
        name: Claim(
            tuple(tensors[name].shape), str(tensors[name].dtype).removeprefix("torch."), box
        )
        for name, box in boxes.items()
        if box is not None
    }


def share_out(claimed: Sequence[Mapping[str, Claim]]) -> list[dict[str, Claim]]:
    """Decide who writes what: every part once, copies of it by whoever has least to write.

    Args:
        claimed: of each process, by rank, what it holds

    Raises:
        AssertionError: the parts do not make up the whole tensors.
    """
    holders: dict[tuple[str, Claim], list[int]] = {}
    for rank, held in enumerate(claimed):
        for name, claim in held.items():
            holders.setdefault((name, claim), []).append(rank)
    load = [0] * len(claimed)
    shares: list[dict[str, Claim]] = [{} for _ in claimed]
    # What only one process holds comes first: the copies then even out the difference.
    for (name, claim), ranks in sorted(holders.items(), key=lambda item: len(item[1])):
        rank = min(ranks, key=load.__getitem__)
        load[rank] += nbytes(claim.box.shape, claim.dtype)
        shares[rank][name] = claim
    _index(shares)
    return shares


def nbytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor."""
    return prod(shape) * getattr(torch, dtype).itemsize


def write_shard(folder: Path, tensors: Mapping[str, Tensor], rank: int) -> Entries:
    """Write what this process holds of some tensors to its file, and bring that to the disk.

    Returns:
        The manifest's entry of the file; empty if there was nothing to write.
    """
    if not tensors:
        return {}
    path = folder / file_name(rank)
    return {path.name: write_tensors(path, {name: local(t) for name, t in tensors.items()})}


def write_index(folder: Path, shares: Sequence[Mapping[str, Claim]]) -> Entries:
    """Write shards.json; `shares` is what `share_out` gave. Returns the manifest's entry."""
    text = json.dumps({"format": FORMAT, "tensors": _index(shares)}, sort_keys=True)
    return {INDEX: write_bytes(folder / INDEX, f"{text}\n".encode())}


def is_sharded(folder: Path) -> bool:
    """Whether a checkpoint's tensors lie in shards."""
    return (folder / INDEX).is_file()


class Shards:
    """The tensors of a sharded checkpoint; nothing is read before it is asked for.

    Raises:
        CheckpointError: shards.json is missing, no JSON, or of a later format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        try:
            index = json.loads((folder / INDEX).read_bytes())
            if index["format"] > FORMAT:
                raise LaterFormat(
                    f"{folder / INDEX} has format {index['format']}, this lit-llm reads up to "
                    f"{FORMAT}: install a later lit-llm"
                )
            tensors = index["tensors"].items()
            self._chunks = {
                name: [
                    (chunk["file"], Box(tuple(chunk["offset"]), tuple(chunk["shape"])))
                    for chunk in tensor["chunks"]
                ]
                for name, tensor in tensors
            }
            self.tensors = {
                name: torch.empty(
                    tensor["shape"], dtype=getattr(torch, tensor["dtype"]), device="meta"
                )
                for name, tensor in tensors
            }
            """Shape and dtype of each, on the meta device."""
        except (OSError, KeyError, TypeError, AttributeError, *NO_JSON) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged: {error!r}") from error

    @property
    def files(self) -> set[str]:
        """The names of all shards."""
        return {file for chunks in self._chunks.values() for file, _ in chunks}

    def read(self, name: str, box: Box) -> Tensor:
        """A part of a tensor, on the CPU, in memory of its own.

        Raises:
            CheckpointError: some of it lies in no shard.
        """
        part = torch.empty(box.shape, dtype=self.tensors[name].dtype)
        found = 0
        for file, chunk in self._chunks[name]:
            if common := box.common(chunk):
                part[common.within(box)] = self._cut(file, name, common.within(chunk))
                found += prod(common.shape)
        if found != part.numel():  # never hand out what torch.empty has left there
            raise CheckpointError(f"{self.folder / INDEX} is damaged: it lacks parts of {name}")
        return part

    def read_all(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin with `prefix`, whole, under their names without it."""
        shapes = {n: tuple(t.shape) for n, t in self.tensors.items() if n.startswith(prefix)}
        return {
            name.removeprefix(prefix): self.read(name, Box((0,) * len(shape), shape))
            for name, shape in shapes.items()
        }

    def _cut(self, file: str, name: str, where: tuple[slice, ...]) -> Tensor:
        if file not in self._files:
            try:
                self._files[file] = safe_open(self.folder / file, framework="pt")
            except SafetensorError as error:
                raise unreadable(self.folder / file, error) from error
        return cut(self._files[file], name, where)


def cut(file: Any, name: str, where: tuple[slice, ...]) -> Tensor:
    """Some of a tensor in an open safetensors file; the rest is not read."""
    return file.get_slice(name)[where] if where else file.get_tensor(name)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor; of a plain one, all."""
    tensor = tensor.detach()
    return tensor.to_local() if is_spread(tensor) else tensor


def _index(shares: Sequence[Mapping[str, Claim]]) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for rank, share in enumerate(shares):
        for name, claim in share.items():
            tensor = tensors.setdefault(
                name, {"shape": claim.shape, "dtype": claim.dtype, "chunks": []}
            )
            same = tensor["shape"] == claim.shape and tensor["dtype"] == claim.dtype
            assert same, f"processes do not agree on {name}: {tensor} and {claim}"
            tensor["chunks"].append({"file": file_name(rank), **claim.box._asdict()})
    for name, tensor in tensors.items():
        boxes = [Box(chunk["offset"], chunk["shape"]) for chunk in tensor["chunks"]]
        assert covers(tensor["shape"], boxes), f"{boxes} do not make up {name}, {tensor['shape']}"
    return tensors
