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
