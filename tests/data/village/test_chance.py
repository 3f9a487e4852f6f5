import random
from collections import Counter

import pytest

from lit_llm.data.village.chance import Chance, digest


def test_a_stream_is_named_by_the_sha_256_of_its_name():
    # printf a/1 | sha256sum: 773232abe9343f0e ...; eight bytes, the lowest first
    assert digest("a", 1) == 0x0E3F34E9AB323277
    assert Chance("a", 1).below(10**9) == int(random.Random(0x0E3F34E9AB323277).random() * 10**9)


def test_equal_names_draw_alike_and_others_do_not():
    def draw(*name: str | int) -> list[int]:
        chance = Chance(*name)
        return [chance.below(1000) for _ in range(20)]

    assert draw(3, "x") == draw(3, "x")
    assert draw(3, "x") != draw(4, "x")
    assert draw(3, "x") != draw(3, "y")


def test_between_reaches_both_ends_and_nothing_else():
    chance = Chance("between")
    assert {chance.between(2, 5) for _ in range(200)} == {2, 3, 4, 5}


def test_a_sample_has_different_positions_and_shuffling_loses_nothing():
    chance = Chance("sample")
    for k in range(8):
        assert len(set(chance.sample(range(7), min(k, 7)))) == min(k, 7)
    assert sorted(chance.shuffled("village")) == sorted("village")


def test_every_order_is_equally_likely():
    chance = Chance("orders")
    orders = Counter("".join(chance.shuffled("abc")) for _ in range(20_000))
    # A swap with any place, not only a later one, would make 4/27 and 5/27 of 1/6
    assert all(count / 20_000 == pytest.approx(1 / 6, abs=0.01) for count in orders.values())
    assert len(orders) == 6


def test_dealing_is_fair_to_within_one():
    counts = Counter(Chance("cards").dealt("abcde", 23))
    assert set(counts.values()) == {4, 5}
    assert sum(counts.values()) == 23


def test_weights_are_followed():
    chance = Chance("weights")
    counts = Counter(chance.weighted("abc", (1, 0, 3)) for _ in range(4000))
    assert counts["b"] == 0
    assert counts["c"] / 4000 == pytest.approx(0.75, abs=0.03)
