import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

from lit_llm.checkpoint.boxes import Box
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.sharded import (
    INDEX,
    Claim,
    Shards,
    claims,
    is_sharded,
    share_out,
    write_index,
    write_shard,
    write_tensors,
)


def _claim(offset: tuple, shape: tuple, of: tuple = (6, 4), dtype: str = "float32") -> Claim:
    return Claim(of, dtype, Box(offset, shape))


@pytest.fixture
def folder(tmp_path):
    """A matrix in four parts of different sizes, cut along both dimensions, and a number."""
    rows, columns = [(0, 5), (5, 2)], [(0, 1), (1, 3)]
    matrix = torch.arange(28, dtype=torch.bfloat16).view(7, 4)
    shares = []
    for rank, ((row, n), (column, m)) in enumerate(itertools.product(rows, columns)):
        part = matrix[row : row + n, column : column + m]
        write_tensors(tmp_path / f"shard-{rank:05d}.safetensors", {"a": part})
        shares.append({"a": _claim((row, column), (n, m), (7, 4), "bfloat16")})
    write_tensors(tmp_path / "shard-00004.safetensors", {"b": torch.tensor(2.5)})
    write_index(tmp_path, [*shares, {"b": _claim((), (), ())}])
    return tmp_path


def test_any_box_can_be_cut_out_of_the_parts(folder):
    matrix = torch.arange(28, dtype=torch.bfloat16).view(7, 4)
    shards = Shards(folder)
    assert shards.tensors["a"].dtype == torch.bfloat16
    assert shards.tensors["a"].shape == (7, 4)
    for r, c in itertools.product(range(7), range(4)):
        for n, m in itertools.product(range(8 - r), range(5 - c)):
            expected = matrix[r : r + n, c : c + m]
            assert torch.equal(shards.read("a", Box((r, c), (n, m))), expected)
    assert shards.read("b", Box((), ())) == 2.5
    assert torch.equal(shards.read_all("a")[""], matrix)


def test_no_more_is_read_than_is_asked_for(folder, monkeypatch):
    read = []
    cut = Shards._cut

    def record(self, file, name, where):
        part = cut(self, file, name, where)
        read.append((file[-17:], part.numel()))
        return part

    monkeypatch.setattr(Shards, "_cut", record)
    Shards(folder).read("a", Box((4, 1), (2, 2)))  # a row of the second part, one of the fourth
    assert read == [("00001.safetensors", 2), ("00003.safetensors", 2)]


def test_what_is_read_has_memory_of_its_own(folder):
    """Else a checkpoint that is replaced or removed would change the weights that came from it."""
    part = Shards(folder).read("a", Box((0, 1), (5, 3)))
    assert part.untyped_storage().nbytes() == part.nbytes
    part.zero_()
    assert int(Shards(folder).read("a", Box((4, 3), (1, 1)))) == 19


def test_a_part_is_written_once_by_whom_has_least_to_write():
    left, right = _claim((0, 0), (6, 1)), _claim((0, 1), (6, 3))
    # 0 and 2 hold the left column, 1 and 3 the rest; c lies in 0 alone and has 48 bytes
    claimed = [
        {"a": left, "c": _claim((0,), (12,), (12,))},
        {"a": right},
        {"a": left},
        {"a": right},
    ]
    shares = share_out(claimed)
    assert [sorted(share) for share in shares] == [["c"], ["a"], ["a"], []]
    assert shares[2]["a"] == left


def test_whole_plain_tensors_are_the_first_ones_to_write():
    tensors = {"a": torch.zeros(3, 2), "step": torch.tensor(1.0), "none": torch.zeros(0)}
    assert claims(tensors, rank=1) == {}
    assert claims(tensors, rank=0) == {
        "a": _claim((0, 0), (3, 2), (3, 2)),
        "step": _claim((), (), ()),
    }


@pytest.mark.parametrize(
    "claimed",
    [
        [{"a": _claim((0, 0), (5, 4))}],
        [{"a": _claim((0, 0), (4, 4))}, {"a": _claim((3, 0), (3, 4))}],
        [{"a": _claim((0, 0), (3, 4))}, {"a": _claim((3, 0), (3, 4), of=(6, 5))}],
        [{"a": _claim((0, 0), (3, 4))}, {"a": _claim((3, 0), (3, 4), dtype="float16")}],
    ],
    ids=["a gap", "an overlap", "two shapes", "two dtypes"],
)
def test_parts_that_make_no_whole_are_refused_before_anything_is_written(claimed):
    with pytest.raises(AssertionError):
        share_out(claimed)


def test_a_shard_is_described_as_the_manifest_has_it(tmp_path):
    tensor = torch.arange(6.0).view(2, 3)
    ((name, entry),) = write_shard(tmp_path, {"a": tensor, "b": tensor}, 7).items()
    assert name == "shard-00007.safetensors"
    assert entry["bytes"] == (tmp_path / name).stat().st_size
    assert torch.equal(load_file(tmp_path / name)["b"], tensor)  # the same storage as a
    assert write_shard(tmp_path, {}, 8) == {}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_index_says_where_each_part_lies(folder):
    assert is_sharded(folder)
    index = json.loads((folder / INDEX).read_text())
    assert index["tensors"]["b"] == {
        "shape": [],
        "dtype": "float32",
        "chunks": [{"file": "shard-00004.safetensors", "offset": [], "shape": []}],
    }
    assert index["tensors"]["a"]["chunks"][3] == {
        "file": "shard-00003.safetensors",
        "offset": [5, 1],
        "shape": [2, 3],
    }


def test_an_index_that_cannot_be_read_is_named(folder):
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "format": 2}))
    with pytest.raises(CheckpointError, match="format 2, this lit-llm reads up to 1"):
        Shards(folder)
    (folder / INDEX).write_bytes(b'"\xff"')
    with pytest.raises(CheckpointError, match=r"shards\.json is damaged"):
        Shards(folder)
    for text in ("{", "[]", '{"format": 1}', '{"format": 1, "tensors": {"a": {"chunks": 1}}}'):
        (folder / INDEX).write_text(text)
        with pytest.raises(CheckpointError, match=r"shards\.json is damaged"):
            Shards(folder)


def test_a_part_that_lies_nowhere_is_never_made_up(folder):
    index = json.loads((folder / INDEX).read_text())
    del index["tensors"]["a"]["chunks"][2]  # rows 5 and 6 of the first column
    (folder / INDEX).write_text(json.dumps(index))
    assert Shards(folder).read("a", Box((0, 0), (5, 4))).shape == (5, 4)
    with pytest.raises(CheckpointError, match="lacks parts of a"):
        Shards(folder).read("a", Box((4, 0), (2, 1)))
