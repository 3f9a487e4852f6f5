"""Which part of a tensor lies in which process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class Box(NamedTuple):
    """A part of a tensor: where it begins and how far it reaches, in each dimension."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    def common(self, other: Box) -> Box | None:
        """What lies in both; None if nothing does."""
        start = tuple(max(a, b) for a, b in zip(self.offset, other.offset, strict=True))
        ends = [
            min(a + n, b + m)
            for a, n, b, m in zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        ]
        shape = tuple(end - begin for begin, end in zip(start, ends, strict=True))
        return Box(start, shape) if all(n > 0 for n in shape) else None

    def within(self, outer: Box) -> tuple[slice, ...]:
        """The indices that cut this box out of the tensor that holds `outer`."""
        return tuple(
            slice(a - b, a - b + n)
            for a, b, n in zip(self.offset, outer.offset, self.shape, strict=True)
        )


def is_spread(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a DTensor, whose parts lie in several processes."""
    # Without that module there is none, and importing it takes a second that prediction saves.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def held_box(tensor: Tensor) -> Box | None:
    """The part of a tensor that lies in this process; None if there is nothing.

    torch's own compute_local_shape_and_global_offset is wrong where FSDP2 splits again what tensor
    parallelism has split unevenly (7 rows over 3 x 2 devices, say), hence this one.
    """
    if not is_spread(tensor):
        return Box((0,) * tensor.ndim, tuple(tensor.shape)) if tensor.numel() else None
    position = tensor.device_mesh.get_coordinate()
    if position is None:
        return None
    box = box_at(tuple(tensor.shape), tuple(tensor.device_mesh.shape), position, tensor.placements)
    held = tuple(tensor.to_local().shape)
    assert held == box.shape, f"a part of shape {held} stands where {box} was expected"
    return box if prod(box.shape) else None


def box_at(
    shape: Sequence[int], mesh: Sequence[int], position: Sequence[int], placements: Sequence[Any]
) -> Box:
    """The part of a tensor that lies at a position of the mesh; empty parts have a size of 0.

    Mesh dimensions split from left to right, a strided one after those to its right that split the
    same dimension: FSDP2 comes first in the mesh, but splits what tensor parallelism has split.
    """
    splits = [i for i, placement in enumerate(placements) if not placement.is_replicate()]
    for i in splits:
        assert not placements[i].is_partial(), f"{placements[i]} holds summands, not parts"
    strided = [i for i in splits if getattr(placements[i], "split_factor", 1) > 1]
    for i in strided:
        inner = [j for j in splits if j > i and placements[j].dim == placements[i].dim]
        assert placements[i].split_factor == prod(mesh[j] for j in inner), (
            f"{placements} interleave"
        )
    offset, extent = [0] * len(shape), list(shape)
    for i in [i for i in splits if i not in strided] + strided[::-1]:
        dim = placements[i].dim
        part = -(-extent[dim] // mesh[i])  # as torch.chunk: all alike, the last ones shorter
        start = min(part * position[i], extent[dim])
        offset[dim] += start
        extent[dim] = min(part, extent[dim] - start)
    return Box(tuple(offset), tuple(extent))


def covers(shape: Sequence[int], boxes: Sequence[Box]) -> bool:
    """Whether each element of a tensor lies in exactly one of the boxes."""
    whole = Box((0,) * len(shape), tuple(shape))
    if sum(prod(box.shape) for box in boxes) != prod(shape):
        return False
    near: list[Box] = []  # those that reach as far as the next one's first row
    for box in sorted(boxes):
        near = [other for other in near if not box.offset or _end(other) > box.offset[0]]
        if box.common(whole) != box or any(other.common(box) for other in near):
            return False
        near.append(box)
    return True


def _end(box: Box) -> int:
    return box.offset[0] + box.shape[0]
