"""Writes safetensors files as a stream: hashed on the way, one tensor in memory at a time.

The library's own `save_file` needs every tensor on the CPU at once, and hands over no bytes to be
hashed. The files are the same, byte for byte: 8 bytes of length, a JSON header padded with spaces
to a multiple of 8, and the tensors (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.hashed import FileEntry, HashedFile

# In the library's order, the widest first: each tensor begins at a multiple of its own width.
_NAMES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write plain tensors, on any device, and describe the file.

    Two names for one memory are written twice, each whole.

    Raises:
        ValueError: a tensor is of a type that the format does not have.
    """
    return write_streamed(path, tensors, tensors.__getitem__)


def write_streamed(
    path: Path, shapes: Mapping[str, Tensor], read: Callable[[str], Tensor]
) -> FileEntry:
    """The same of tensors that are made or read when their turn comes, one after the other.

    Args:
        path: the file
        shapes: of all tensors, which may lie on the meta device
        read: gives a tensor of the shape and dtype that was promised

    Raises:
        ValueError: as `write_tensors`.
    """
    assert sys.byteorder == "little", "the format is little-endian, and nothing here swaps bytes"
    for name, tensor in shapes.items():
        if tensor.dtype not in _NAMES:
            raise ValueError(
                f"{name} has dtype {tensor.dtype}, which safetensors files do not have: "
                "keep it in another one"
            )
    order = list(_NAMES)
    ordered = sorted(shapes.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    with HashedFile(path) as file:
        file.write(_header(ordered))
        for name, promised in ordered:
            tensor = read(name)
            assert tensor.shape == promised.shape, f"{name} has shape {tuple(tensor.shape)}"
            assert tensor.dtype == promised.dtype, f"{name} has dtype {tensor.dtype}"
            if tensor.numel():
                file.write(_bytes_of(tensor))
    return file.entry


def _header(ordered: list[tuple[str, Tensor]]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> Any:
    """The memory of a tensor as an array of bytes; copied only from a device or a strided view."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()
