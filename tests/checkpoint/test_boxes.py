import itertools
import random

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor.placement_types import Partial, Replicate, Shard, _StridedShard

from lit_llm.checkpoint.boxes import Box, box_at, covers


def _chunk(tensor: Tensor, parts: int, position: int, dim: int = 0) -> Tensor:
    chunks = tensor.chunk(parts, dim)
    return chunks[position] if position < len(chunks) else tensor.narrow(dim, 0, 0)


def _cut(tensor: Tensor, box: Box) -> Tensor:
    return tensor[box.within(Box((0,) * tensor.ndim, tuple(tensor.shape)))]


def test_a_part_is_what_torch_chunk_gives():
    for rows, parts in itertools.product(range(1, 12), (1, 2, 3, 4, 8)):
        tensor = torch.arange(rows * 3).view(rows, 3)
        for position in range(parts):
            box = box_at((rows, 3), (parts,), (position,), (Shard(0),))
            assert torch.equal(_cut(tensor, box), _chunk(tensor, parts, position))


def test_fsdp_splits_again_what_tensor_parallelism_has_split():
    """The second split comes first in the mesh; also where neither divides the rows.

    In 89 of these cases torch's compute_local_shape_and_global_offset gives another box, the
    first of them 7 rows on 3 x 2 devices.
    """
    for rows, tensor_size, data_size in itertools.product(range(1, 60), (2, 4, 8), (1, 2, 3, 4)):
        tensor, mesh = torch.arange(rows * 2).view(rows, 2), (data_size, tensor_size)
        placements = (_StridedShard(0, split_factor=tensor_size), Shard(0))
        boxes = []
        for position in itertools.product(range(data_size), range(tensor_size)):
            boxes.append(box_at((rows, 2), mesh, position, placements))
            expected = _chunk(_chunk(tensor, tensor_size, position[1]), data_size, position[0])
            assert torch.equal(_cut(tensor, boxes[-1]), expected)
        assert covers((rows, 2), [box for box in boxes if 0 not in box.shape])


def test_two_dimensions_are_split_independently_and_copies_are_alike():
    tensor = torch.arange(35).view(5, 7)
    for replica, row, column in itertools.product(range(2), range(3), range(4)):
        placements = (Replicate(), Shard(0), Shard(1))
        box = box_at((5, 7), (2, 3, 4), (replica, row, column), placements)
        assert torch.equal(_cut(tensor, box), _chunk(_chunk(tensor, 3, row), 4, column, dim=1))


def test_a_left_split_comes_before_a_right_one():
    tensor = torch.arange(7).view(7, 1)
    for first, second in itertools.product(range(2), range(3)):
        box = box_at((7, 1), (2, 3), (first, second), (Shard(0), Shard(0)))
        assert torch.equal(_cut(tensor, box), _chunk(_chunk(tensor, 2, first), 3, second))


@pytest.mark.parametrize("placement", [Partial(), _StridedShard(0, split_factor=2)])
def test_what_is_no_box_is_refused(placement):
    """Summands are no parts, and stripes that nothing splits further are several boxes."""
    with pytest.raises(AssertionError):
        box_at((8, 2), (2,), (0,), (placement,))


def test_a_common_part_lies_in_both():
    box = Box((1, 2), (3, 4))  # rows 1 to 3, columns 2 to 5
    assert box.common(Box((2, 0), (9, 4))) == Box((2, 2), (2, 2))
    assert box.common(Box((4, 2), (1, 1))) is None  # touches it
    assert Box((), ()).common(Box((), ())) == Box((), ())
    assert Box((2, 2), (2, 2)).within(box) == (slice(1, 3), slice(0, 2))


def test_boxes_cover_a_tensor_if_every_element_lies_in_one():
    """Compared with counting, on grids that were cut at random and then spoilt or not."""
    draw = random.Random(5)
    outcomes = []
    for _ in range(300):
        boxes = _grid(draw, (6, 5))
        for _ in range(draw.randrange(3)):
            offset = (draw.randrange(6), draw.randrange(5))
            shape = (draw.randint(1, 7 - offset[0]), draw.randint(1, 6 - offset[1]))
            boxes[draw.randrange(len(boxes))] = Box(offset, shape)
        count = torch.zeros(8, 8)
        for box in boxes:
            _cut(count, box).add_(1)
        expected = bool((count[:6, :5] == 1).all()) and int(count.sum()) == 30
        assert covers((6, 5), boxes) == expected, boxes
        outcomes.append(expected)
    assert 50 < sum(outcomes) < 250


def _grid(draw: random.Random, shape: tuple[int, int]) -> list[Box]:
    borders = [[0, *sorted(draw.sample(range(1, size), draw.randrange(3))), size] for size in shape]
    spans = [[(a, b - a) for a, b in itertools.pairwise(border)] for border in borders]
    boxes = [Box((row, column), (n, m)) for (row, n), (column, m) in itertools.product(*spans)]
    draw.shuffle(boxes)
    return boxes


def test_a_number_is_covered_by_itself_alone():
    assert covers((), [Box((), ())])
    assert not covers((), [])
    assert not covers((), [Box((), ()), Box((), ())])
