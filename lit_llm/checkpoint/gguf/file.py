"""How is a GGUF file written as a stream, and read back?

Metadata are plain values: a whole number is stored in 32 bits without sign, as llama.cpp wants its
sizes and ids, a float in 32 bits, and the items of a list of whole numbers in 32 bits with sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from types import ModuleType

    from lit_llm.checkpoint.gguf.tensors import Planned

ARCHITECTURE = "general.architecture"

Metadata = dict[str, Any]
"""Values by key: bool, int, float, str, or a list of one of the last three."""


def library() -> ModuleType:
    """The package gguf.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import gguf  # an extra: most users export nothing
    except ImportError:
        raise ValueError(
            "export --to gguf needs the package gguf: pip install 'lit-llm[gguf]'"
        ) from None
    return gguf


def write_file(path: Path, metadata: Mapping[str, Any], tensors: Sequence[Planned]) -> None:
    """Write the file; of the tensors one at a time is in memory."""
    gguf = library()
    writer = gguf.GGUFWriter(path, metadata[ARCHITECTURE])
    try:
        for key, value in metadata.items():
            if key != ARCHITECTURE:  # the writer has put it in
                writer.add_key_value(key, value, *_types(value))
        for tensor in tensors:
            writer.add_tensor_info(
                tensor.name,
                tensor.shape,
                np.dtype(np.float32),
                tensor.nbytes,
                raw_dtype=gguf.GGMLQuantizationType[tensor.type],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(tensor.encoded())
    finally:
        writer.close()


def read_metadata(reader: Any) -> Metadata:
    """All metadata that a file holds, as the library reads them."""
    fields = reader.fields.items()
    return {key: field.contents() for key, field in fields if not key.startswith("GGUF.")}


def stored(value: Any) -> Any:
    """A value as it comes back from a file: floats have lost half of their digits."""
    if isinstance(value, float):
        return float(np.float32(value))
    if isinstance(value, list):
        return [stored(item) for item in value]
    return value


def _types(value: Any) -> tuple[Any, Any]:
    """The library's type of a value, and of its items."""
    kinds = library().GGUFValueType
    if isinstance(value, bool):
        return kinds.BOOL, None
    if isinstance(value, list):
        return kinds.ARRAY, _item_type(value)
    return {int: kinds.UINT32, float: kinds.FLOAT32, str: kinds.STRING}[type(value)], None


def _item_type(items: Iterable[Any]) -> Any:
    kinds = library().GGUFValueType
    (type_,) = {type(item) for item in items}  # an empty list cannot be stored
    return {int: kinds.INT32, float: kinds.FLOAT32, str: kinds.STRING}[type_]
