"""Does the file hold what was meant? It is opened again, and every tensor and key compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_llm.checkpoint.gguf.file import library, read_metadata, stored
from lit_llm.checkpoint.gguf.tensors import Q8_BLOCK, Planned
from lit_llm.checkpoint.hf.prove import NotEqual

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def prove_file(path: Path, metadata: Mapping[str, Any], tensors: Sequence[Planned]) -> str:
    """Compare a file with what it should hold.

    Returns:
        What has been compared, in words.

    Raises:
        NotEqual: names what differs first.
    """
    reader = library().GGUFReader(path)
    _compare_metadata(read_metadata(reader), metadata)
    there = {tensor.name: tensor for tensor in reader.tensors}
    if wrong := there.keys() ^ {planned.name for planned in tensors}:
        raise _not_equal(f"{min(wrong)} is there and should not be, or the other way round")
    for planned in tensors:
        _compare(planned, there[planned.name])
    exact = all(planned.type != "Q8_0" for planned in tensors)
    how = "bit for bit" if exact else "within the rounding of q8_0, norms bit for bit"
    return f"read again: {len(tensors)} tensors equal {how}, {len(metadata)} keys equal"


def _compare_metadata(there: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    for key in {**metadata, **there}:
        if key not in there or key not in metadata or there[key] != stored(metadata[key]):
            raise _not_equal(f"the key {key} has another value than was meant")


def _compare(planned: Planned, there: Any) -> None:
    shape = tuple(int(size) for size in reversed(there.shape))  # GGUF counts from the innermost
    if (shape, there.tensor_type.name) != (planned.shape, planned.type):
        raise _not_equal(
            f"{planned.name} is {there.tensor_type.name} of {shape}, "
            f"meant was {planned.type} of {planned.shape}"
        )
    meant = planned.make()
    found = library().quants.dequantize(there.data, there.tensor_type)
    found = torch.from_numpy(np.array(found))  # a copy: a mapped file cannot be written to
    if planned.type == "Q8_0":
        wrong = ((found - meant).abs() > _q8_rounding(meant)) | found.isnan()
    else:
        rounded = meant.to(_DTYPES[planned.type])
        # As bits: NaN is no NaN's equal, and 0 is -0's.
        wrong = found.float().view(torch.int32) != rounded.float().view(torch.int32)
    if count := int(wrong.sum()):
        raise _not_equal(f"{planned.name} differs in {count:,} of {wrong.numel():,} values")


def _q8_rounding(meant: torch.Tensor) -> torch.Tensor:
    """How far a value may be from the one meant.

    The scale is the block's largest value / 127, a float16 with 11 digits; values are whole
    multiples of it, of -127 to 127: so half a scale, and 127 times the error of the scale itself.
    """
    blocks = meant.unflatten(-1, (-1, Q8_BLOCK))
    largest = blocks.abs().amax(-1, keepdim=True)
    scale_error = torch.maximum(largest / 127 * 2**-11, torch.tensor(2.0**-25))  # subnormal
    allowed = (largest / 127 / 2 + 127 * scale_error) * (1 + 2**-20)
    return allowed.expand_as(blocks).flatten(-2)


def _not_equal(what: str) -> NotEqual:
    return NotEqual(
        f"the file is not what was meant: {what}. Nothing is left of it; please report this"
    )
