import math
import time
from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest

from lit_llm.data.order import Order, Permutation, block_counts, permute

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 30, 31, 97, 100, 1009, 4096, 4097)


@pytest.mark.parametrize("n", SIZES)
def test_every_number_comes_exactly_once(n):
    assert sorted(permute(i, n, "key") for i in range(n)) == list(range(n))


@pytest.mark.parametrize("n", [*SIZES, 1_000_003, 1_234_567])
def test_of_many_numbers_at_once_every_one_comes_exactly_once_too(n):
    places = Permutation(n, "key").many(np.arange(n))
    assert np.bincount(places, minlength=n).tolist() == [1] * n


@pytest.mark.parametrize("n", [1, 6, 97, 4097, 10**12 + 39, 2**62 + 1])
def test_many_at_once_are_what_each_of_them_is_alone(n, monkeypatch):
    monkeypatch.setattr("lit_llm.data.order.AT_ONCE", 100)  # several chunks
    order = Permutation(n, "key")
    some = [*range(min(n, 150)), *(n - 1 - i * n // 997 for i in range(150)), n - 1]
    assert order.many(np.array(some)).tolist() == [order[i] for i in some]
    assert order.many(np.array([], np.int64)).tolist() == []
    for outside in (-1, n):
        with pytest.raises(AssertionError):
            order.many(np.array([0, outside]))


def test_two_million_positions_a_second_are_placed_in_a_corpus_of_a_trillion():
    """10 million on a quiet core; one position after another would be 0.2 million."""
    order = Order([10**12], seed=1)
    positions = np.random.default_rng(0).integers(0, 10**13, 2**19)

    def seconds():
        start = time.perf_counter()
        order.many(positions)
        return time.perf_counter() - start

    assert len(positions) / min(seconds() for _ in range(5)) > 2e6


def test_places_beyond_the_grid_never_come_out_of_a_huge_permutation():
    n = 10**12 + 39  # a prime: the grid is larger than n
    some = [permute(i, n, "key") for i in range(0, n, n // 997)]
    assert all(0 <= place < n for place in some)
    assert len(set(some)) == len(some)


@pytest.mark.parametrize("n", [3, 4])
def test_all_orders_of_a_few_rows_are_equally_likely(n):
    keys = 6000
    seen = Counter(tuple(permute(i, n, f"key {k}") for i in range(n)) for k in range(keys))
    expected = keys / math.factorial(n)
    chi_square = sum((seen[p] - expected) ** 2 / expected for p in permutations(range(n)))
    freedom = math.factorial(n) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)  # 4 standard deviations


@pytest.mark.parametrize("n", [7, 12])
def test_all_pairs_are_equally_likely(n):
    """Where any two of the rows go, over 4,000 keys: each of n (n - 1) pairs of places alike."""
    keys = 4000
    for first, second in ((0, 1), (n // 2, n - 1)):
        seen: Counter[tuple[int, int]] = Counter()
        for k in range(keys):
            order = Permutation(n, f"key {k}")
            seen[order[first], order[second]] += 1
        expected = keys / (n * (n - 1))
        chi_square = sum((seen[p] - expected) ** 2 / expected for p in permutations(range(n), 2))
        freedom = n * (n - 1) - 1
        assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


def test_neighbours_are_torn_apart():
    n = 5000
    order = [permute(i, n, "key") for i in range(n)]
    close = sum(abs(a - b) < 50 for a, b in pairwise(order))
    # Chance: about 2 * 50 / n = 2% of 4,999 pairs = 100; 10 is a standard deviation.
    assert 60 < close < 140


def test_the_order_of_one_key_is_fixed_for_all_time():
    """Recorded: a change here makes runs that were started before it go on with other samples."""
    assert [permute(i, 10, "0/0/0") for i in range(10)] == [0, 9, 5, 6, 2, 7, 1, 4, 8, 3]


def test_an_epoch_holds_every_row_once_and_the_next_in_another_order():
    order = Order([11], seed=3)
    first, second = ([order[11 * epoch + i] for i in range(11)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == [(0, row) for row in range(11)]
    assert first != second


def test_without_weights_all_components_are_shuffled_together():
    order = Order([3, 1, 5], seed=3)
    everything = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]
    for epoch in range(4):
        assert sorted(order[9 * epoch + i] for i in range(9)) == everything


def test_a_sample_depends_on_seed_and_position_only():
    positions = [7, 100_003, 0, 7, 55, 12, 7]
    walked = Order([13, 4], [3, 1], seed=5)
    assert [walked[p] for p in positions] == [Order([13, 4], [3, 1], seed=5)[p] for p in positions]
    assert [walked[p] for p in range(40)] != [Order([13, 4], [3, 1], seed=6)[p] for p in range(40)]


@pytest.mark.parametrize("weights", [None, [5, 3, 2]])
def test_many_samples_at_once_are_what_each_of_them_is_alone(weights):
    order = Order([1000, 33, 7], weights, seed=3)
    positions = [*range(500), *(i * 7919 for i in range(500)), 10**11, 3, 3]
    components, rows = order.many(np.array(positions))
    assert list(zip(components.tolist(), rows.tolist(), strict=True)) == [
        order[position] for position in positions
    ]
    assert [len(part) for part in order.many(np.array([], np.int64))] == [0, 0]


def test_weights_of_3_and_1_take_turns_in_a_block_of_4():
    order = Order([10, 10], [0.75, 0.25])
    assert [order[p][0] for p in range(12)] == [0, 0, 1, 0] * 3


def test_shares_are_exact_in_every_block_and_each_component_counts_its_own_epochs():
    order = Order([4, 6], [2, 3])
    samples = [order[p] for p in range(5 * 12)]
    for block in range(12):
        owners = Counter(component for component, _ in samples[5 * block : 5 * block + 5])
        assert owners == {0: 2, 1: 3}
    for component, size in ((0, 4), (1, 6)):
        rows = [row for owner, row in samples if owner == component]
        for epoch in range(len(rows) // size):
            assert sorted(rows[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_a_component_is_never_behind_its_share_by_more_than_one_turn_of_each_other():
    weights = [5, 3, 2]
    order = Order([100, 100, 100], weights)
    owners = [order[p][0] for p in range(40)]
    for stop in range(1, 41):
        for component, weight in enumerate(weights):
            assert abs(owners[:stop].count(component) - stop * weight / 10) < 1.5


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ([1.0], [1]),
        ([2, 2], [1, 1]),
        ([0.7, 0.2, 0.1], [7, 2, 1]),
        ([0.3333, 0.6667], [1, 2]),
        ([1, 999], [1, 999]),
        ([2**0.5, 3**0.5, 5**0.5], [263, 322, 415]),  # 262.75, 321.80 and 415.45 of 1000
    ],
)
def test_the_block_is_the_shortest_with_exact_shares_or_rounded_to_thousandths(weights, counts):
    assert block_counts(weights) == counts


@pytest.mark.parametrize("weights", [[1, 0], [1, -2], [1, math.nan], [1, math.inf]])
def test_a_weight_that_is_not_positive_is_refused(weights):
    with pytest.raises(ValueError, match="leave the corpus out"):
        Order([5, 5], weights)


def test_a_weight_too_small_for_the_block_is_refused():
    with pytest.raises(ValueError, match=r"weight of 0\.0005 is under 1/1000 of all weights"):
        Order([5, 5], [0.9995, 0.0005])
