import math

import pytest
import torch

from lit_llm.model.rope import RopeScaling, apply_rope, rope_table


def test_a_quarter_turn_moves_channel_i_to_channel_i_plus_half():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rope = torch.full((4,), math.cos(math.pi / 2)), torch.full((4,), math.sin(math.pi / 2))
    torch.testing.assert_close(apply_rope(x, rope), torch.tensor([-3.0, -4.0, 1.0, 2.0]))


def test_the_table_holds_the_angles_of_the_formula():
    cos, sin = rope_table(3, 4, theta=100.0)
    # pair 0 turns by t, pair 1 by t * 100^(-1/2) = t / 10; computed with math.cos and math.sin
    assert cos[2].tolist() == pytest.approx([-0.416147, 0.980067, -0.416147, 0.980067], abs=1e-6)
    assert sin[2].tolist() == pytest.approx([0.909297, 0.198669, 0.909297, 0.198669], abs=1e-6)


def test_position_zero_is_not_turned():
    cos, sin = rope_table(1, 6)
    x = torch.randn(6)
    assert torch.equal(apply_rope(x, (cos[0], sin[0])), x)


def test_scores_depend_on_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(64), torch.randn(64)
    cos, sin = rope_table(1000, 64)

    def score(t: int, s: int) -> torch.Tensor:
        return apply_rope(q, (cos[t], sin[t])) @ apply_rope(k, (cos[s], sin[s]))

    torch.testing.assert_close(score(5, 2), score(905, 902), rtol=0, atol=1e-3)
    assert abs(score(5, 2) - score(5, 4)) > 0.1


def test_odd_head_dim_is_refused():
    with pytest.raises(ValueError, match="head_dim must be even, got 7"):
        rope_table(3, 7)


def test_bfloat16_input_is_rotated_in_float32():
    torch.manual_seed(0)
    x, rope = torch.randn(1000, 64).bfloat16(), rope_table(1000, 64)
    assert torch.equal(apply_rope(x, rope), apply_rope(x.float(), rope).bfloat16())


def test_the_gradient_is_turned_back():
    torch.manual_seed(0)
    rope, upstream = rope_table(5, 6), torch.randn(5, 6)
    x = torch.randn(5, 6, requires_grad=True)
    (found,) = torch.autograd.grad(apply_rope(x, rope), x, upstream)
    cos, sin = rope
    first, second = upstream.chunk(2, dim=-1)
    back = torch.cat((second, -first), dim=-1)
    torch.testing.assert_close(found, upstream * cos + back * sin)


def test_a_second_derivative_is_refused():
    x = torch.randn(5, 6, requires_grad=True)
    turned = apply_rope(x, rope_table(5, 6))
    (first,) = torch.autograd.grad(turned.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def frequencies(scaling: RopeScaling, head_dim: int = 16, theta: float = 10_000.0) -> list[float]:
    cos_TE, sin_TE = rope_table(2, head_dim, theta=theta, scaling=scaling)
    return torch.atan2(sin_TE[1], cos_TE[1])[: head_dim // 2].tolist()


def test_linear_scaling_slows_every_rotation_alike():
    plain, slowed = (
        frequencies(RopeScaling(kind="linear", factor=1.0)),
        frequencies(RopeScaling(kind="linear", factor=4.0)),
    )
    assert slowed == pytest.approx([angle / 4 for angle in plain], rel=1e-6)
    assert plain[0] == pytest.approx(1)


def test_llama3_scaling_slows_long_wavelengths_and_leaves_short_ones():
    scaling = RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=100
    )
    plain, scaled = frequencies(RopeScaling(kind="linear", factor=1.0)), frequencies(scaling)
    for angle, found in zip(plain, scaled, strict=True):
        turns = 100 * angle / (2 * math.pi)  # in the context of the first training
        if turns > 4:
            assert found == pytest.approx(angle, rel=1e-6)
        elif turns < 1:
            assert found == pytest.approx(angle / 8, rel=1e-6)
        else:
            share = (turns - 1) / 3
            assert found == pytest.approx(share * angle + (1 - share) * angle / 8, rel=1e-5)
    assert {found == angle for angle, found in zip(plain, scaled, strict=True)} == {True, False}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "yarn"}, "kind='yarn': choose linear or llama3"),
        ({"factor": 0.5}, "factor=0.5: give a number of 1 or more"),
        ({"low_freq_factor": 4.0}, "low_freq_factor=4.0 must be above 0 and below"),
        ({"original_max_seq_len": 0}, "original_max_seq_len=0: give 1 or more"),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RopeScaling(**settings)
