import pytest
import torch
from torch import nn

from lit_llm.generation.linear import FastLinear, Int8Linear, pack, quantize

IN, OUT = 37, 23


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, bias=False)


@pytest.mark.parametrize("shape", [(1, IN), (16, IN), (2, 5, IN), (1, 1, IN)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_fast_linear_computes_what_the_linear_does(linear, shape, packed):
    x = torch.randn(shape)
    with torch.no_grad():
        found = FastLinear(linear, packed=packed)(x)
    assert torch.allclose(found, x @ linear.weight.T, atol=1e-6)


def test_the_sum_of_products_of_one_row_is_the_matrix_product(linear):
    x = torch.randn(1, 1, IN)
    with torch.no_grad():
        found = FastLinear(linear, packed=False).one_row(x)
    assert found.shape == (1, 1, OUT)
    assert torch.allclose(found, x @ linear.weight.T, atol=1e-6)


def test_its_weight_is_shared_and_its_packed_copy_is_no_part_of_a_checkpoint(linear):
    fast = FastLinear(linear, packed=True)
    assert fast.weight is linear.weight
    assert set(fast.state_dict()) == {"weight"}


def test_rounding_is_off_by_at_most_half_a_step_of_its_row():
    weight = torch.tensor([[1.27, -0.024, 0.006], [0.0, 0.0, 0.0], [-12.7, 0.26, 0.0]])
    rounded, scale = quantize(weight)
    assert rounded.tolist() == [[127, -2, 1], [0, 0, 0], [-127, 3, 0]]
    assert scale[[0, 2]].tolist() == pytest.approx([0.01, 0.1])


def test_int8_computes_alike_with_one_row_and_with_several(linear):
    int8 = Int8Linear(linear)
    x = torch.randn(3, IN)
    with torch.no_grad():
        together = int8(x)
        alone = torch.cat([int8.one_row(row[None]) for row in x])
    expected = x @ (int8.weight.float() * int8.scale[:, None]).T
    assert torch.allclose(together, expected, atol=1e-6)
    assert torch.allclose(alone, expected, atol=1e-6)


def test_int8_is_within_the_error_of_its_rounding(linear):
    x = torch.randn(8, IN)
    with torch.no_grad():
        error = (Int8Linear(linear)(x) - linear(x)).abs()
    bound = x.abs().sum(1, keepdim=True) * linear.weight.abs().amax(1) / 254
    assert (error <= bound + 1e-6).all()


def test_what_onednn_does_not_know_is_not_packed():
    assert pack(torch.ones(2, 3, dtype=torch.float64)) is None
    assert pack(torch.ones(2, 3, device="meta")) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda linear: FastLinear(linear, packed=True), Int8Linear])
def test_packed_weights_take_rows_of_another_dtype_as_autocast_does(linear, make, autocast, dtype):
    x = torch.randn(16, IN).to(dtype)
    fast = make(linear)
    with torch.no_grad(), torch.autocast("cpu", autocast, enabled=autocast is not None):
        found = fast(x)
    assert found.dtype == (autocast or dtype)  # F.linear's
    # bfloat16 has 8 bits; rounding to int8 is off by up to sum |x| * max |w| / 254, about 0.02
    assert torch.allclose(found.float(), x.float() @ linear.weight.T, atol=0.03)
