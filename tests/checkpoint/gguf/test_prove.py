import re

import gguf
import pytest
import torch

from lit_llm.checkpoint.gguf.file import write_file
from lit_llm.checkpoint.gguf.prove import prove_file
from lit_llm.checkpoint.gguf.tensors import Planned
from lit_llm.checkpoint.hf.prove import NotEqual

METADATA = {
    "general.architecture": "llama",
    "llama.norm": 1e-5,
    "tokenizer.ggml.tokens": ["a", "b"],
}
TYPES = ["F32", "F16", "BF16", "Q8_0"]


def values() -> torch.Tensor:
    """Of sizes from a float16's smallest to beyond its rounding; one is no number."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(6, 64, generator=generator) * torch.logspace(-8, 4, 6)[:, None]
    values[3, :32] = 0
    return values


def planned(type_: str) -> list[Planned]:
    return [
        Planned("norm", (64,), "F32", lambda: torch.tensor([3.4e38, -0.0, *range(62)])),
        Planned("matrix", (6, 64), type_, values),
    ]


@pytest.fixture(params=TYPES)
def type_(request) -> str:
    return request.param


@pytest.fixture
def path(tmp_path, type_):
    write_file(tmp_path / "a.gguf", METADATA, planned(type_))
    return tmp_path / "a.gguf"


def test_what_was_meant_is_there(path, type_):
    exact = "bit for bit" if type_ != "Q8_0" else "within the rounding of q8_0, norms bit for bit"
    said = prove_file(path, METADATA, planned(type_))
    assert said == f"read again: 2 tensors equal {exact}, 3 keys equal"


def damage(path, name: str, at: int, bit: int) -> None:
    """Flip a bit of a tensor's byte."""
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    content = bytearray(path.read_bytes())
    content[tensor.data_offset + at] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_is_found_in_a_norm(path, type_):
    damage(path, "norm", at=4, bit=0)  # the last bit of -0
    with pytest.raises(NotEqual, match=r"not what was meant: norm differs in 1 of 64 values"):
        prove_file(path, METADATA, planned(type_))


@pytest.mark.parametrize(("at", "bit"), [(1, 4), (2 + 5, 1)])
def test_a_flipped_bit_is_found_in_a_matrix(path, type_, at, bit):
    """With Q8_0 in the exponent of a scale, and in one value by 2 of 127 steps."""
    damage(path, "matrix", at=34 * 4 * 2 + at, bit=bit)  # of Q8_0, the fifth row's first block
    with pytest.raises(NotEqual, match="matrix differs in ") as found:
        prove_file(path, METADATA, planned(type_))
    count = int(re.search(r"in (\d+) of 384 values", str(found.value))[1])
    assert count == 1 or (type_ == "Q8_0" and at == 1 and count <= 32)


@pytest.mark.parametrize("change", [{"llama.norm": 2e-5}, {"tokenizer.ggml.tokens": ["a", "c"]}])
def test_another_value_of_a_key_is_found(tmp_path, change):
    write_file(tmp_path / "a.gguf", METADATA, planned("F32"))
    with pytest.raises(NotEqual, match=f"the key {next(iter(change))} has another value"):
        prove_file(tmp_path / "a.gguf", {**METADATA, **change}, planned("F32"))


def test_keys_and_tensors_too_many_and_too_few_are_found(tmp_path):
    path, tensors = tmp_path / "a.gguf", planned("F32")
    write_file(path, METADATA, tensors)
    fewer = {key: value for key, value in METADATA.items() if key != "llama.norm"}
    for metadata in (fewer, {**METADATA, "z": 1}):
        with pytest.raises(NotEqual, match=r"the key (llama\.norm|z) has another"):
            prove_file(path, metadata, tensors)
    for others in (tensors[:1], [*tensors, Planned("z", (1,), "F32", lambda: torch.ones(1))]):
        with pytest.raises(NotEqual, match=r"(matrix|z) is there and should not be, or"):
            prove_file(path, METADATA, others)


def test_another_shape_and_another_type_are_found(tmp_path):
    path = tmp_path / "a.gguf"
    write_file(path, METADATA, planned("F16"))
    with pytest.raises(NotEqual, match=r"matrix is F16 of \(6, 64\), meant was BF16 of \(6, 64\)"):
        prove_file(path, METADATA, planned("BF16"))
    turned = Planned("matrix", (64, 6), "F16", lambda: values().T.contiguous())
    with pytest.raises(NotEqual, match=r"meant was F16 of \(64, 6\)"):
        prove_file(path, METADATA, [planned("F16")[0], turned])
