import pytest
import torch

from lit_llm.model.norm import RMSNorm


def test_a_vector_is_divided_by_its_root_mean_square_and_scaled():
    norm = RMSNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 5.0]))
    # root mean square of (1, 7): sqrt((1 + 49) / 2) = 5
    torch.testing.assert_close(norm(torch.tensor([1.0, 7.0])), torch.tensor([0.4, 7.0]))


def test_eps_is_added_to_the_mean_square():
    # mean square of (3, 3) is 9; (3, 3) / sqrt(9 + 7) = 0.75
    torch.testing.assert_close(RMSNorm(2, eps=7.0)(torch.full((2,), 3.0)), torch.full((2,), 0.75))


def test_the_size_of_the_input_does_not_matter():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8)
    norm = RMSNorm(8, eps=0.0)
    torch.testing.assert_close(norm(1000 * x), norm(x))


def test_bfloat16_is_normed_in_float32_and_rounded_before_it_is_scaled():
    torch.manual_seed(0)
    norm = RMSNorm(96).bfloat16()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(96))
    x = torch.randn(50, 96).bfloat16()
    wide = x.float()
    rounded = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps)).bfloat16()
    assert torch.equal(norm(x), rounded * norm.weight)
    assert norm(x).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(6,), (2, 3, 6)])
def test_gradients_are_those_of_the_formula(shape):
    torch.manual_seed(0)
    norm = RMSNorm(6, eps=0.1)
    torch.nn.init.normal_(norm.weight)
    x, upstream = torch.randn(shape, requires_grad=True), torch.randn(shape)
    formula = x * (x.square().mean(-1, keepdim=True) + 0.1).rsqrt() * norm.weight
    expected = torch.autograd.grad(formula, (x, norm.weight), upstream)
    found = torch.autograd.grad(norm(x), (x, norm.weight), upstream)
    torch.testing.assert_close(found, expected)


def test_under_autocast_it_is_rounded_to_what_the_projections_compute_in():
    torch.manual_seed(0)
    norm, x = RMSNorm(6), torch.randn(3, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(x), RMSNorm(6)(x).bfloat16())
    assert norm(x).dtype == torch.float32


def test_under_autocast_its_gradients_are_those_of_float32():
    torch.manual_seed(0)
    norm, upstream = RMSNorm(96), torch.randn(50, 96)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(50, 96, requires_grad=True)
    expected = torch.autograd.grad(norm(x), (x, norm.weight), upstream)
    scaled = norm(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(scaled, (x, norm.weight), upstream)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_device_that_knows_no_autocast_is_fine():
    assert RMSNorm(6, eps=0.1).to("meta")(torch.ones(3, 6, device="meta")).shape == (3, 6)


def test_a_second_derivative_is_refused():
    x = torch.randn(3, 6, requires_grad=True)
    (first,) = torch.autograd.grad(RMSNorm(6)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()
