import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lit_llm.checkpoint.hashed import HashedFile
from lit_llm.checkpoint.safetensors_file import _NAMES, write_tensors


def _tensors() -> dict[str, torch.Tensor]:
    """Every type, an odd number of elements each, and shapes without elements or dimensions."""
    torch.manual_seed(0)
    of_all_types = {
        f"{name}.x": torch.randint(0, 2, (3, 5)).to(dtype) for dtype, name in _NAMES.items()
    }
    return {
        **of_all_types,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3, dtype=torch.bfloat16),
        'quoted "ü"': torch.ones(2),
    }


def test_the_file_is_the_librarys_byte_for_byte(tmp_path):
    for length in range(1, 9):  # of a name, so that headers of all lengths are padded
        tensors = {**_tensors(), "n" * length: torch.ones(1)}
        write_tensors(tmp_path / "ours", tensors)
        save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_both_ways_of_the_library_read_it(tmp_path):
    path = tmp_path / "file"
    tensor = torch.arange(12.0, dtype=torch.bfloat16).view(3, 4)
    write_tensors(path, {"a": tensor, "number": torch.tensor(7)})
    assert torch.equal(load_file(path)["a"], tensor)
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_slice("a")[1:, ::2], tensor[1:, ::2])
        assert file.get_tensor("number") == 7
        assert file.metadata() == {"format": "pt"}


def test_views_and_two_names_for_one_memory_are_written_whole(tmp_path):
    matrix = torch.arange(6.0, requires_grad=True).view(2, 3)
    tensors = {"a": matrix, "again": matrix, "turned": matrix.T, "row": matrix[1]}
    entry = write_tensors(tmp_path / "file", tensors)
    loaded = load_file(tmp_path / "file")
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "again": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "row": [3, 4, 5],
    }
    assert entry["bytes"] == (tmp_path / "file").stat().st_size


def test_one_tensor_at_a_time_is_handed_over(tmp_path, monkeypatch):
    """As it lies in memory: no copy of a model is made to save it."""
    pieces = []
    write = HashedFile.write

    def record(self, data):
        pieces.append(memoryview(data))
        return write(self, data)

    monkeypatch.setattr(HashedFile, "write", record)
    tensors = {"a": torch.arange(4.0), "b": torch.arange(9.0)}
    write_tensors(tmp_path / "file", tensors)
    assert [piece.nbytes for piece in pieces[1:]] == [16, 36]
    tensors["b"][8] = -1
    assert pieces[2].tobytes() == tensors["b"].numpy().tobytes()


def test_a_type_that_the_format_lacks_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"odd has dtype torch\.complex128"):
        write_tensors(tmp_path / "file", {"odd": torch.zeros(1, dtype=torch.complex128)})
    assert not (tmp_path / "file").exists()
