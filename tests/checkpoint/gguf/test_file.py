import sys

import gguf
import numpy as np
import pytest
import torch

from lit_llm.checkpoint.gguf.file import library, read_metadata, stored, write_file
from lit_llm.checkpoint.gguf.tensors import Planned

METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.rope.freq_base": 0.1,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.ggml.tokens": ["ä", ""],
    "tokenizer.ggml.scores": [0.1, -7.0],
    "tokenizer.ggml.token_type": [1, 6],
}


@pytest.fixture
def path(tmp_path):
    tensors = [
        Planned("a", (2, 3), "F32", lambda: torch.arange(6.0).view(2, 3)),
        Planned("b", (1, 32), "Q8_0", lambda: torch.full((1, 32), 127.0)),
        Planned("c", (5,), "BF16", lambda: torch.arange(5.0)),
    ]
    write_file(tmp_path / "a.gguf", METADATA, tensors)
    return tmp_path / "a.gguf"


def test_metadata_have_the_types_that_llama_cpp_reads(path):
    """It reads sizes without sign and types of tokens with one, and all floats in 32 bits."""
    reader = gguf.GGUFReader(path)
    types = {key: [type_.name for type_ in field.types] for key, field in reader.fields.items()}
    assert types["llama.block_count"] == ["UINT32"]
    assert types["llama.rope.freq_base"] == ["FLOAT32"]
    assert types["tokenizer.ggml.add_bos_token"] == ["BOOL"]
    assert types["tokenizer.ggml.tokens"] == ["ARRAY", "STRING"]
    assert types["tokenizer.ggml.scores"] == ["ARRAY", "FLOAT32"]
    assert types["tokenizer.ggml.token_type"] == ["ARRAY", "INT32"]


def test_values_come_back(path):
    read = read_metadata(gguf.GGUFReader(path))
    assert read == {key: stored(value) for key, value in METADATA.items()}
    assert read["llama.rope.freq_base"] == float(np.float32(0.1)) != 0.1


def test_tensors_come_back_with_their_shapes_and_types(path):
    a, b, c = gguf.GGUFReader(path).tensors
    assert a.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert gguf.dequantize(b.data, b.tensor_type).tolist() == [[127.0] * 32]
    assert gguf.dequantize(c.data, c.tensor_type).tolist() == [0, 1, 2, 3, 4]
    assert [tensor.data_offset % 32 for tensor in (a, b, c)] == [0, 0, 0]


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    alive = most = 0

    class Counted(torch.Tensor):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def make() -> torch.Tensor:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return torch.zeros(4).as_subclass(Counted)

    tensors = [Planned(name, (4,), "F32", make) for name in "abcdef"]
    write_file(tmp_path / "a.gguf", METADATA, tensors)
    assert most <= 2  # the last one may live until the next is made


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"needs the package gguf: pip install 'lit-llm\[gguf\]'"):
        library()
