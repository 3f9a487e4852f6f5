"""Which sample comes at position p of the run: a pure function of (seed, p), with nothing stored.

That is why a run can stop at any step and go on with other devices, workers or micro-batches:
whoever needs position p computes it.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

ROUNDS = 12
"""Each round mixes more; small numbers of rows need the most. Over 20,000 keys, chi-square of the
120 orders of 5 rows (119 would be chance): 575 after 8 rounds, 191 after 10, 142 after 12."""

LONGEST_BLOCK = 1000
"""Positions after which the pattern of several corpora repeats at the latest."""

AT_ONCE = 2**15
"""Numbers that are sent through together: their 256 KB stay in the cache."""

_MASK = (1 << 64) - 1

Whole = TypeVar("Whole", int, np.ndarray)
"""A whole number, or an array of them."""


class Permutation:
    """The numbers 0 to n - 1 in an order that `key` decides, in O(1) memory.

    A Feistel network over the grid Z_a x Z_b, a and b about sqrt(n) (Black and Rogaway, 2002,
    "Ciphers with arbitrary finite domains"): each round shifts one coordinate by a hash of the
    other, which can be undone, so no two numbers meet. The grid has at most sqrt(n) cells too
    many; a number that lands there is sent through again until it comes out below n.
    """

    def __init__(self, n: int, key: str) -> None:
        assert n > 0
        self.n = n
        self.a = math.isqrt(n - 1) + 1
        self.b = -(-n // self.a)
        digest = hashlib.shake_256(key.encode()).digest(8 * ROUNDS)
        self.keys = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 8 * ROUNDS, 8)]

    def __getitem__(self, index: int) -> int:
        assert 0 <= index < self.n
        while (index := self._through(index)) >= self.n:
            pass
        return index

    def many(self, indices: np.ndarray) -> np.ndarray:
        """`self[index]` of each index, int64: 0.1 microseconds each, where one alone takes 6.

        A call costs 0.2 ms whatever it is for: for fewer than some 30 numbers a loop is faster.
        """
        indices = np.asarray(indices)
        assert not len(indices) or (indices.min() >= 0 and indices.max() < self.n)
        places = np.empty(len(indices), np.int64)
        for start in range(0, len(indices), AT_ONCE):
            chunk = self._through(indices[start : start + AT_ONCE].astype(np.uint64))
            while len(outside := np.flatnonzero(chunk >= self.n)):
                chunk[outside] = self._through(chunk[outside])
            places[start : start + AT_ONCE] = chunk
        return places

    def _through(self, index: Whole) -> Whole:
        """Once through the network; of an int, or of an array of uint64 at once."""
        a, b = self.a, self.b
        x, y = divmod(index, b)
        for i in range(0, ROUNDS, 2):
            # The inner % keeps the sum within 64 bits, which arrays have and Python does not need.
            x = (x + _mix(y ^ self.keys[i]) % a) % a
            y = (y + _mix(x ^ self.keys[i + 1]) % b) % b
        return x * b + y


def permute(index: int, n: int, key: str) -> int:
    """Place of `index` in the order of 0 to n - 1 that `key` decides."""
    return Permutation(n, key)[index]


class Order:
    """The endless sequence of samples of one or several corpora ("components").

    Without weights an epoch holds every row of every component once, all shuffled together.

    With weights the components take turns in a block that repeats: the shortest block, of at most
    1000 positions, in which each has its exact share. Inside it each component's turns are spread
    evenly (weights 3 and 1: 0 0 1 0). Each component counts its own epochs, so a small one with a
    large weight comes round more often. In which order its rows come differs from epoch to epoch.

    Args:
        sizes: rows of each component
        weights: share of each component in the samples, not normalized
        seed: another seed, another order; the block stays

    Raises:
        ValueError: a weight is not positive, or its share is under 1/1000.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float] | None = None, seed: int = 0
    ) -> None:
        assert sizes
        assert min(sizes) > 0
        assert weights is None or len(weights) == len(sizes)
        self.borders = list(accumulate(sizes, initial=0))
        # Without weights all rows count as one component; `borders` finds their owners again.
        self.sizes = [self.borders[-1]] if weights is None else list(sizes)
        self.whole = weights is None
        self.seed = seed
        self.counts = block_counts([1.0] if weights is None else weights)
        self.block = _spread(self.counts)
        self._permutations: dict[int, tuple[int, Permutation]] = {}

    def __getitem__(self, position: int) -> tuple[int, int]:
        """(component, row) of the sample at `position`, which counts from 0 without end."""
        repeats, slot = divmod(position, len(self.block))
        component, turn = self.block[slot]
        turns = repeats * self.counts[component] + turn
        epoch, index = divmod(turns, self.sizes[component])
        row = self._permutation(component, epoch)[index]
        if not self.whole:
            return component, row
        owner = bisect_right(self.borders, row) - 1
        return owner, row - self.borders[owner]

    def many(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(components, rows) of the samples at `positions`, int64 both: `self[p]` of each."""
        repeats, slots = np.divmod(np.asarray(positions, np.int64), len(self.block))
        components, turns = np.array(self.block, np.int64)[slots].T
        turns = repeats * np.array(self.counts)[components] + turns
        epochs, indices = np.divmod(turns, np.array(self.sizes)[components])
        rows = np.empty(len(slots), np.int64)
        order = np.lexsort((epochs, components))  # those of one permutation stand together
        same = (np.diff(components[order]) == 0) & (np.diff(epochs[order]) == 0)
        for group in np.split(order, np.flatnonzero(~same) + 1):
            if len(group):
                component, epoch = int(components[group[0]]), int(epochs[group[0]])
                rows[group] = self._permutation(component, epoch).many(indices[group])
        if not self.whole:
            return components, rows
        owners = np.searchsorted(self.borders, rows, side="right") - 1
        return owners, rows - np.array(self.borders)[owners]

    def _permutation(self, component: int, epoch: int) -> Permutation:
        """Only the latest is kept: it saves hashing the key anew for each row of an epoch."""
        latest = self._permutations.get(component)
        if latest is None or latest[0] != epoch:
            key = f"{self.seed}/{component}/{epoch}"
            latest = epoch, Permutation(self.sizes[component], key)
            self._permutations[component] = latest
        return latest[1]


def block_counts(weights: Sequence[float]) -> list[int]:
    """Turns of each component in the shortest block of at most 1000 that has the exact shares.

    Where no such block exists it has 1000 positions, and shares are rounded to thousandths, the
    largest remainders up.
    """
    if bad := [weight for weight in weights if not 0 < weight < math.inf]:
        raise ValueError(f"weight {bad[0]} of a corpus is not positive: leave the corpus out")
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    if min(shares) < 1 / LONGEST_BLOCK:
        raise ValueError(
            f"a weight of {min(weights)} is under 1/{LONGEST_BLOCK} of all weights ({total:g}): "
            "raise it, or leave the corpus out"
        )
    for length in range(len(shares), LONGEST_BLOCK + 1):
        # A weight typed with 4 digits, such as 0.3333, means a third: 1e-4 of it counts as exact.
        if all(abs(share * length - round(share * length)) <= 1e-4 for share in shares):
            return [round(share * length) for share in shares]
    counts = [int(share * LONGEST_BLOCK) for share in shares]
    remainders = [
        share * LONGEST_BLOCK - count for share, count in zip(shares, counts, strict=True)
    ]
    by_remainder = sorted(range(len(shares)), key=lambda i: -remainders[i])
    for i in by_remainder[: LONGEST_BLOCK - sum(counts)]:
        counts[i] += 1
    return counts


def _spread(counts: Sequence[int]) -> list[tuple[int, int]]:
    """(component, number of its turn) at each position of the block, turns evenly spaced."""
    turns = [(component, turn) for component, count in enumerate(counts) for turn in range(count)]
    return sorted(turns, key=lambda c_t: ((c_t[1] + 0.5) / counts[c_t[0]], c_t[0]))


def _mix(x: Whole) -> Whole:
    """A 64-bit hash: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
