"""Reads single tensors, or parts of them, from any checkpoint: of one file or in shards.

    reader = Reader(folder)
    weight = reader.read_like("model.embed.weight", parameter)  # placed as the parameter is

Names are "model.<name in GPT.state_dict()>" and "optimizer.<parameter's id>.<key>".
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lit_llm.checkpoint.base import LORA, find_base, is_adapted
from lit_llm.checkpoint.boxes import Box, box_at, is_spread
from lit_llm.checkpoint.bundle import MODEL, TIED, TIED_TO, has_tied_head, read_meta, weights_file
from lit_llm.checkpoint.manifest import unreadable
from lit_llm.checkpoint.plain import lora_from_plain
from lit_llm.checkpoint.sharded import Shards, cut, is_sharded
from lit_llm.checkpoint.training_state import OPTIMIZER, TRAINING, read_training, without_optimizer
from lit_llm.model.lora import adapted, merged


class Reader:
    """The tensors of a checkpoint. It reads what is asked for and verifies nothing.

    Of a LoRA run's checkpoint these are the weights of the whole network, adapters merged.

    Args:
        folder: a checkpoint
        apart: give adapters as they lie in their checkpoint, and the optimizer's state of them

    Raises:
        CheckpointError: the folder holds no model, or the base of adapters is not there.
    """

    def __init__(self, folder: Path, *, apart: bool = False) -> None:
        self.folder = folder
        meta = read_meta(folder)
        self._tied = has_tied_head(meta) if apart else bool(meta["model"]["tie_embeddings"])
        self._source: Shards | _Plain | _Merged
        if is_adapted(meta) and not apart:
            self._source = _Merged(folder, meta)
        elif is_sharded(folder):
            self._source = Shards(folder)
        else:
            self._source = _Plain(folder, weights_file(meta))

    @property
    def names(self) -> list[str]:
        """Of all tensors; of the optimizer's too."""
        tied = [MODEL + TIED] if self._tied else []
        return [*self._source.tensors, *tied]

    def describe(self, name: str) -> Tensor:
        """Shape and dtype: a tensor on the meta device."""
        return self._source.tensors[self._stored(name)]

    def skeleton(self) -> dict[str, Tensor]:
        """The weights on the meta device, named as in `GPT.state_dict()`, for `check_weights`."""
        names = [name for name in self.names if name.startswith(MODEL)]
        return {name.removeprefix(MODEL): self.describe(name) for name in names}

    def read(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        shape = tuple(self.describe(name).shape)
        return self._source.read(self._stored(name), Box((0,) * len(shape), shape))

    def read_like(self, name: str, like: Tensor) -> Tensor:
        """A tensor placed as another one of its shape is: the same device and the same parts.

        Reads only the part that this process needs; no process waits for another. The dtype stays
        that of the file.
        """
        device = like.device if like.device.type != "meta" else torch.device("cpu")
        if not is_spread(like):
            return self.read(name).to(device)
        from torch.distributed.tensor import DTensor

        mesh, shape = like.device_mesh, tuple(like.shape)
        stored = tuple(self.describe(name).shape)
        assert stored == shape, f"{name} has shape {stored}, its place {shape}"
        position = mesh.get_coordinate()
        assert position is not None, f"this process has no part of {name}"
        box = box_at(shape, tuple(mesh.shape), position, like.placements)
        return DTensor.from_local(
            self._source.read(self._stored(name), box).to(device),
            mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )

    def training(self) -> dict[str, Any]:
        """What training.ckpt holds, without the optimizer's tensors."""
        if not isinstance(self._source, _Plain) or not self._source.training:
            return read_training(self.folder)  # which refuses a folder that has none
        return _own(self._source.training)

    def _stored(self, name: str) -> str:
        return MODEL + TIED_TO if self._tied and name == MODEL + TIED else name


class _Plain:
    """The same as Shards, for a file of weights and training.ckpt."""

    def __init__(self, folder: Path, weights: str) -> None:
        try:
            self._weights = safe_open(folder / weights, framework="pt")
        except SafetensorError as error:
            raise unreadable(folder / weights, error) from error
        self.training: dict[str, Any] = {}
        optimizer: dict[str, Tensor] = {}
        if (folder / TRAINING).is_file():  # absent where the model alone was published
            training = read_training(folder, mmap=True)
            self.training, optimizer = without_optimizer(training)
        self._optimizer = {OPTIMIZER + name: tensor for name, tensor in optimizer.items()}

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        # get_tensor maps the file and reads nothing
        names = list(self._weights.keys())  # not every version of safetensors iterates by itself
        weights = {MODEL + name: self._weights.get_tensor(name) for name in names}
        both = {**weights, **self._optimizer}
        return {name: torch.empty_like(tensor, device="meta") for name, tensor in both.items()}

    def read(self, name: str, box: Box) -> Tensor:
        where = box.within(Box((0,) * len(box.shape), box.shape))
        if name in self._optimizer:
            return self._optimizer[name][where].clone()
        return cut(self._weights, name.removeprefix(MODEL), where).clone()


class _Merged:
    """The same for a base and the adapters that belong to it; weights alone."""

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        self._adapters = Reader(folder, apart=True)
        self._base = Reader(find_base(folder, meta))
        self._scale = lora_from_plain(meta[LORA]).scale

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        names = [name for name in self._base.names if name.startswith(MODEL)]
        like = {name: self._base.describe(name) for name in names}
        return {n: t.to(torch.promote_types(t.dtype, torch.float32)) for n, t in like.items()}

    def read(self, name: str, box: Box) -> Tensor:
        whole = (self._adapters if name in self._adapters.names else self._base).read(name)
        a, b = adapted(name)
        if a in self._adapters.names:
            # all of it, whatever the box: a part of a product may differ from it in the last bit
            whole = merged(whole, self._adapters.read(a), self._adapters.read(b), self._scale)
        where = box.within(Box((0,) * whole.ndim, tuple(whole.shape)))
        return whole[where].to(self.tensors[name].dtype, copy=True)


def _own(value: Any) -> Any:
    """Copy tensors out of the file that they are mapped from."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _own(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_own(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_own(item) for item in value)
    return value
