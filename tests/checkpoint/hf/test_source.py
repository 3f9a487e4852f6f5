import json

import pytest
import torch
from safetensors.torch import save_file

from lit_llm.checkpoint.hf.source import Source

A, B = torch.arange(6.0).reshape(2, 3), torch.ones(2, dtype=torch.bfloat16)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def test_shapes_are_known_before_a_tensor_is_read(folder):
    save_file({"a": A, "b": B}, folder / "model.safetensors")
    source = Source(folder)
    assert source.config == {"model_type": "llama"}
    assert {name: (tuple(t.shape), t.dtype) for name, t in source.tensors.items()} == {
        "a": ((2, 3), torch.float32),
        "b": ((2,), torch.bfloat16),
    }
    assert all(tensor.is_meta for tensor in source.tensors.values())
    assert torch.equal(source.read("a"), A)


def test_shards_are_read_through_their_index(folder):
    save_file({"a": A}, folder / "one.safetensors")
    save_file({"b": B}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    source = Source(folder)
    assert torch.equal(source.read("a"), A)
    assert torch.equal(source.read("b"), B)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {"a": "two.safetensors"}}, r"two\.safetensors lacks a"),
        ({"weight_map": {"a": 3}}, "names 3, which is no file beside it"),
        ({"weight_map": {"a": "three.safetensors"}}, r"three\.safetensors is missing"),
    ],
)
def test_an_index_that_promises_too_much_is_refused(index, said, folder):
    save_file({"b": B}, folder / "two.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=said):
        Source(folder)


def test_a_tensor_in_two_files_is_refused(folder):
    save_file({"a": A}, folder / "one.safetensors")
    save_file({"a": A, "b": B}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="a stands in two files"):
        Source(folder)


def test_a_pickle_of_something_else_is_refused(folder):
    torch.save([A], folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no weights"):
        Source(folder)
    torch.save({"a": A}, folder / "pytorch_model.bin")
    assert torch.equal(Source(folder).read("a"), A)
