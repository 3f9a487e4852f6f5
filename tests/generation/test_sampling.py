import math

import pytest
import torch
from transformers.generation import logits_process as processors

from lit_llm.generation.sampling import (
    Sampling,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_tokens,
    penalize_repetition,
    row_generator,
)

INF = math.inf
B, V = 3, 50


def log(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def kept(logits: torch.Tensor) -> list[int]:
    return logits[0].isfinite().nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0: give 1 or more"),
        ({"temperature": -0.1}, "temperature=-0.1: give 0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0: give 1 or more, or null"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"min_p": -0.5}, "min_p=-0.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0: give more than 0"),
        ({"stop": ["a", ""]}, "none of them empty"),
        ({"stop": "end"}, "stop='end': give a list"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_top_k_keeps_the_k_largest_and_their_equals():
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0], [2.0, 2.0, 9.0, 0.0]])
    assert keep_top_k(logits, 2).tolist() == [[-INF, 5, -INF, 4], [2, 2, 9, -INF]]
    assert torch.equal(keep_top_k(logits, 99), logits)


def test_top_p_keeps_the_likeliest_until_p_is_reached():
    logits = log(0.15, 0.5, 0.05, 0.3)
    assert kept(keep_top_p(logits, 0.4)) == [1]  # one always stays
    assert kept(keep_top_p(logits, 0.6)) == [1, 3]
    assert kept(keep_top_p(logits, 0.9)) == [0, 1, 3]
    assert kept(keep_top_p(logits, 0.99)) == [0, 1, 2, 3]


def test_top_p_of_equals_keeps_the_smaller_ids():
    assert kept(keep_top_p(torch.zeros(1, 8), 0.5)) == [0, 1, 2, 3]


def test_min_p_is_relative_to_the_likeliest():
    logits = log(0.15, 0.5, 0.05, 0.3)
    assert kept(keep_min_p(logits, 0.2)) == [0, 1, 3]  # at least 0.1
    assert kept(keep_min_p(logits, 0.5)) == [1, 3]  # at least 0.25
    assert kept(keep_min_p(logits, 1.0)) == [1]


def test_repetition_makes_seen_tokens_less_likely_whatever_their_sign():
    logits = torch.tensor([[3.0, -3.0, 3.0, -3.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalize_repetition(logits, seen, 1.5).tolist() == [[2.0, -4.5, 3.0, -3.0]]


@pytest.mark.parametrize("value", [0.03, 0.5, 0.9])
def test_filters_and_penalty_equal_those_of_transformers(value):
    generator = torch.Generator().manual_seed(7)
    logits = 3 * torch.randn(B, V, generator=generator)
    prompt = torch.randint(V, (B, 12), generator=generator)
    seen = torch.zeros(B, V, dtype=torch.bool).scatter(1, prompt, True)

    def theirs(name: str, argument: float) -> torch.Tensor:
        return getattr(processors, name)(argument)(prompt, logits.clone())

    k = int(20 * value) + 1
    assert torch.equal(keep_top_k(logits, k), theirs("TopKLogitsWarper", k))
    assert torch.equal(keep_top_p(logits, value), theirs("TopPLogitsWarper", value))
    assert torch.equal(keep_min_p(logits, value), theirs("MinPLogitsWarper", value))
    penalty = theirs("RepetitionPenaltyLogitsProcessor", 1 + value)
    assert torch.equal(penalize_repetition(logits, seen, 1 + value), penalty)


def test_all_settings_together_equal_transformers_in_order():
    """The penalty comes first, temperature next, and each filter sees what the last one left."""
    generator = torch.Generator().manual_seed(8)
    logits = 3 * torch.randn(B, V, generator=generator)
    prompt = torch.randint(V, (B, 12), generator=generator)
    expected = logits
    for processor in (
        processors.RepetitionPenaltyLogitsProcessor(1.7),
        processors.TemperatureLogitsWarper(1.3),
        processors.TopKLogitsWarper(20),
        processors.TopPLogitsWarper(0.8),
        processors.MinPLogitsWarper(0.05),
    ):
        expected = processor(prompt, expected)
    sampling = Sampling(temperature=1.3, top_k=20, top_p=0.8, min_p=0.05, repetition_penalty=1.7)
    ours = next_tokens(
        logits,
        sampling,
        generators=[row_generator(0, [row], 0) for row in range(B)],
        seen_BV=torch.zeros(B, V, dtype=torch.bool).scatter(1, prompt, True),
    )
    uniform = [
        torch.rand((), generator=row_generator(0, [row], 0), dtype=torch.float64).item()
        for row in range(B)
    ]
    assert ours.tolist() == draw(expected, uniform).tolist()
    assert expected.isfinite().sum() < B * 20  # the filters did something


def test_a_draw_inverts_the_cumulative_distribution():
    logits = log(0.2, 0.0, 0.5, 0.3).expand(6, 4)
    uniform = [0.0, 0.19, 0.21, 0.69, 0.71, 1 - 2**-53]
    assert draw(logits, uniform).tolist() == [0, 0, 2, 2, 3, 3]


def test_tokens_of_probability_zero_are_never_drawn_at_either_end():
    logits = log(0.0, 0.6, 0.4, 0.0).expand(2, 4)
    assert draw(logits, [0.0, 1 - 2**-53]).tolist() == [1, 2]


def test_draws_follow_the_probabilities():
    uniform = (torch.arange(1000) / 1000).tolist()
    counts = draw(log(0.1, 0.25, 0.65).expand(1000, 3), uniform).bincount()
    assert counts.tolist() == pytest.approx([100, 250, 650], abs=1)


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([[1.0, 3.0, 2.0], [4.0, 3.0, 2.0]])
    assert next_tokens(logits, Sampling(), generators=[]).tolist() == [1, 0]


def test_temperature_divides_the_logits():
    # odds of 1 to 9 become 1 to 3 at temperature 2: the border lies at 0.25, not at 0.1
    ids = [
        next_tokens(
            log(0.1, 0.9), Sampling(temperature=2.0), generators=[row_generator(seed, [], 0)]
        ).item()
        for seed in range(1000)
    ]
    assert ids.count(0) == pytest.approx(250, abs=40)  # three standard deviations


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_forbidden_tokens_are_not_chosen(temperature):
    logits = torch.tensor([[9.0, 1.0, 8.0, 0.0]]).expand(200, 4)
    ids = next_tokens(
        logits,
        Sampling(temperature=temperature),
        generators=[row_generator(0, [], row) for row in range(200)],
        forbidden=torch.tensor([0, 2]),
    )
    assert set(ids.tolist()) == ({1} if temperature == 0 else {1, 3})


def test_a_rows_randomness_follows_seed_prompt_and_copy():
    def first(*arguments) -> float:
        return torch.rand((), generator=row_generator(*arguments)).item()

    assert first(1, [2, 3], 0) == first(1, [2, 3], 0)
    others = [first(1, [2, 3], 0), first(2, [2, 3], 0), first(1, [23], 0), first(1, [2, 3], 1)]
    assert len(set(others)) == 4
