"""The files of a model that somebody else has written: what is there, read safely and lazily.

Only safetensors, and of pickles only what PyTorch reads with `weights_only=True`: no file of a
stranger executes anything here. Tensors are mapped from their files, so that one is in memory at a
time.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


class Source:
    """Names, shapes and dtypes of all tensors of a folder, and each tensor when it is asked for.

    Args:
        folder: holds config.json and weights, in one file or in shards with their index

    Raises:
        ValueError: a file is missing, cut off or of another kind, or pickles more than tensors.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"no folder {folder}: give one that holds config.json and weights")
        self.folder = folder
        self.config = read_json(folder / "config.json")
        self.tensors: dict[str, Tensor] = {}
        """by their names in the file, on the meta device"""
        self._readers: dict[str, Callable[[str], Tensor]] = {}
        for file, promised in self._files().items():
            self._open(folder / file, promised)

    def read(self, name: str) -> Tensor:
        """One tensor, mapped from its file.

        Raises:
            ValueError: the file cannot be read.
        """
        try:
            return self._readers[name](name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.folder}: {name} cannot be read: {error}") from None

    def _files(self) -> dict[str, list[str] | None]:
        """Files of weights, with the tensors that the index promises in each."""
        for whole, index in ((WHOLE, INDEX), (PICKLE, PICKLE_INDEX)):
            if (self.folder / whole).is_file():
                return {whole: None}
            if (self.folder / index).is_file():
                return self._shards(index)
        raise ValueError(
            f"no weights in {self.folder}: it holds neither {WHOLE} nor {INDEX}\n"
            "Convert other formats first, for example with save_pretrained of transformers"
        )

    def _shards(self, index: str) -> dict[str, list[str] | None]:
        content = read_json(self.folder / index).get("weight_map")
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{self.folder / index} has no weight_map: download it again")
        shards: dict[str, list[str] | None] = {}
        for name, file in content.items():
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(
                    f"{self.folder / index} names {file!r}, which is no file beside it"
                )
            if not (self.folder / file).is_file():
                raise ValueError(
                    f"{self.folder} is not whole: {file} is missing; download it again"
                )
            names = shards.setdefault(file, [])
            assert names is not None
            names.append(name)
        return shards

    def _open(self, path: Path, promised: list[str] | None) -> None:
        opened = _open_pickle(path) if path.suffix == ".bin" else _open_safetensors(path)
        if promised is not None and (lost := sorted(set(promised) - opened[0].keys())):
            raise ValueError(f"{path} lacks {lost[0]}, which the index promises: download it again")
        tensors, read = opened
        for name, tensor in tensors.items():
            if name in self.tensors:
                raise ValueError(f"{self.folder}: {name} stands in two files of weights")
            self.tensors[name] = tensor
            self._readers[name] = read


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the file is missing, no JSON, or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}: give the folder of a whole model")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__}, not an object")
    return content


_Opened = tuple[dict[str, Tensor], Callable[[str], Tensor]]


def _open_safetensors(path: Path) -> _Opened:
    def read(name: str) -> Tensor:
        # Opened anew each time: pages of a file that stays mapped count as memory of the process.
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors = {name: _without_memory(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or cut off ({str(error).splitlines()[0]}): download it again"
        ) from None
    return tensors, read


def _open_pickle(path: Path) -> _Opened:
    try:
        is_zip = zipfile.is_zipfile(path)  # older files cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # a stranger's bytes may fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise ValueError(
            f"{path} holds more than tensors, or is damaged; nothing of it was executed: {reason}\n"
            "Ask for the model in safetensors"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{path} holds no weights: a dictionary of tensors is needed")
    return {name: _without_memory(tensor) for name, tensor in content.items()}, content.__getitem__


def _without_memory(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
