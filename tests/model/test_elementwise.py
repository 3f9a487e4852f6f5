"""What the library computes is what the operators of norm.py, rope.py and mlp.py compute."""

import pytest
import torch

from lit_llm.model import elementwise
from lit_llm.model.mlp import _Gated
from lit_llm.model.norm import RMSNorm
from lit_llm.model.rope import apply_rope, rope_table

DTYPES = [torch.float32, torch.bfloat16]
B, H, T, E = 2, 3, 67, 10  # T: more than one block of rows, and a part of one


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    if elementwise.library() is None:
        pytest.skip("no compiler here makes a library of elementwise.cpp")
    monkeypatch.setattr(elementwise, "LEAST", 1)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def both_ways(monkeypatch, call, *inputs) -> list[list[torch.Tensor]]:
    """Result and gradients by the library and by PyTorch's operators."""
    found = []
    for library in (elementwise.library, lambda: None):
        monkeypatch.setattr(elementwise, "library", library)
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = call(*leaves)
        upstream = draw(*out.shape, dtype=out.dtype, seed=1)
        found.append([out, *torch.autograd.grad(out, leaves, upstream)])
    return found


def assert_close(ours, pytorchs) -> None:
    for one, other in zip(ours, pytorchs, strict=True):
        assert one.dtype == other.dtype
        wide = one.dtype == torch.float32
        # operators that round in between are off by a step of bfloat16 here and there
        torch.testing.assert_close(
            one, other, rtol=1e-4 if wide else 0.02, atol=2e-5 if wide else 0.02
        )


def normed(x, weight, dtype=None):
    norm = RMSNorm(x.size(-1))
    norm.weight = torch.nn.Parameter(weight.detach())
    norm._parameters["weight"] = weight
    return norm(x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(monkeypatch, dtype):
    x, weight = draw(B, T, 33, dtype=dtype) * 3, draw(33, dtype=dtype, seed=2)
    assert_close(*both_ways(monkeypatch, normed, x, weight))


def test_norms_under_autocast(monkeypatch):
    def call(x, weight):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = normed(x, weight)
        assert out.dtype == torch.bfloat16
        return out

    assert_close(*both_ways(monkeypatch, call, draw(B, T, 33) * 3, draw(33, seed=2)))


def test_the_norm_of_heads_that_lie_across_each_other(monkeypatch):
    heads = draw(B, T, H, E).transpose(1, 2)
    assert_close(*both_ways(monkeypatch, normed, heads, draw(E, seed=2)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batches", [1, B])  # one table for all rows, one for each
def test_rotations(monkeypatch, dtype, batches):
    cos_SE, sin_SE = rope_table(100, E)
    positions_BT = torch.stack([torch.arange(T) + 9 * row for row in range(batches)])
    rope = cos_SE[positions_BT][:, None], sin_SE[positions_BT][:, None]
    x = draw(B, T, H, E, dtype=dtype).transpose(1, 2)
    ours, pytorchs = both_ways(monkeypatch, lambda x: apply_rope(x, rope), x)
    assert_close(ours, pytorchs)
    assert ours[0].is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gates(monkeypatch, dtype):
    gate, up = draw(B, T, 35, dtype=dtype) * 4, draw(B, T, 35, dtype=dtype, seed=2)
    assert_close(*both_ways(monkeypatch, _Gated.apply, gate, up))


def test_gates_far_from_zero():
    gate = torch.tensor([-300.0, -90.0, 0.0, 90.0, 300.0, torch.nan])
    found = elementwise.gate(gate, torch.full((6,), 2.0))
    expected = torch.tensor([0.0, 0.0, 0.0, 180.0, 600.0, torch.nan])
    torch.testing.assert_close(found, expected, equal_nan=True, atol=1e-6, rtol=1e-6)


def test_the_number_of_threads_changes_no_bit():
    threads, found = torch.get_num_threads(), []
    x, weight = draw(200, 33), draw(33, seed=2)
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            out, inverse = elementwise.norm(x, weight, 1e-5, torch.float32)
            found.append((out, *elementwise.norm_backward(out, x, weight, inverse)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_it_takes_what_is_large_on_a_cpu_and_not_compiled(monkeypatch):
    x = draw(4, 5)
    assert elementwise.can_compute(x)
    assert not elementwise.can_compute(x.double())
    assert not elementwise.can_compute(x.to("meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not elementwise.can_compute(x)
    monkeypatch.undo()
    assert not elementwise.can_compute(x)  # there are few numbers in it
    monkeypatch.setattr(elementwise, "library", lambda: None)
    monkeypatch.setattr(elementwise, "LEAST", 1)
    assert not elementwise.can_compute(x)


def test_the_default_dtype_decides_nothing():
    x, weight = draw(200, 33, dtype=torch.bfloat16), draw(33, dtype=torch.bfloat16, seed=2)
    found = []
    for default in (torch.float32, torch.bfloat16):  # the latter in a Trainer in bf16-true
        torch.set_default_dtype(default)
        try:
            out, inverse = elementwise.norm(x, weight, 1e-5, torch.bfloat16)
            found.append((out, inverse, *elementwise.norm_backward(out, x, weight, inverse)))
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(*found, rtol=0, atol=0)
