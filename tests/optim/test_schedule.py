import pytest

from lit_llm.optim import Constant, Linear, WarmupCosine, WarmupStableDecay


def test_cosine_by_hand():
    schedule = WarmupCosine(warmup_steps=4, floor=0.2)
    # warmup: 1/4, 2/4, 3/4, 4/4; then halfway through the cosine (1 + 0.2) / 2; then the floor
    factors = [schedule(step, 14) for step in (0, 1, 3, 4, 9, 14, 99)]
    assert factors == pytest.approx([0.25, 0.5, 1.0, 1.0, 0.6, 0.2, 0.2])


def test_linear_by_hand():
    schedule = Linear(warmup_steps=2, floor=0.0)
    factors = [schedule(step, 10) for step in (0, 1, 2, 4, 6, 10)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.0])


def test_warmup_stable_decay_by_hand():
    schedule = WarmupStableDecay(warmup_steps=5, decay_share=0.25, floor=0.1)
    # 20 steps: plateau until step 15, then 0.9 lower over 5 steps
    factors = [schedule(step, 20) for step in (0, 4, 10, 15, 16, 20)]
    assert factors == pytest.approx([0.2, 1.0, 1.0, 1.0, 0.82, 0.1])


def test_plateau_does_not_know_how_long_training_lasts():
    schedule = WarmupStableDecay(warmup_steps=5, decay_share=0.2)
    assert [schedule(s, 100) for s in range(80)] == [schedule(s, 1000) for s in range(80)]


def test_constant_by_hand():
    assert [Constant(warmup_steps=2)(step, 9) for step in (0, 1, 8)] == [0.5, 1.0, 1.0]
    assert Constant()(0, 9) == 1.0


@pytest.mark.parametrize("schedule", [WarmupCosine, Linear, WarmupStableDecay, Constant])
def test_warmup_steps_must_not_be_negative(schedule):
    with pytest.raises(ValueError, match="warmup_steps=-3 is negative"):
        schedule(warmup_steps=-3)
