"""Where chance comes from: streams named by plain values, the same on every platform.

Of Python's generator only `random()` is promised to draw the same numbers in every version, so
that everything else is built on it here. Nothing depends on `hash()` or on the order of a set.
"""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
Name = str | int


def digest(*name: Name) -> int:
    """A 64-bit number that a name determines."""
    text = "/".join(str(part) for part in name)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


class Chance:
    """A stream of random choices that its name determines: `Chance(seed, "document", 17)`."""

    def __init__(self, *name: Name) -> None:
        self._uniform = random.Random(digest(*name)).random

    def below(self, n: int) -> int:
        """An integer from 0 to n - 1."""
        return int(self._uniform() * n)

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def happens(self, probability: float) -> bool:
        """True with the given probability."""
        return self._uniform() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One item."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[Item], weights: Sequence[float]) -> Item:
        """One item, in proportion to its weight."""
        point = self._uniform() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            point -= weight
            if point < 0:
                return item
        return items[-1]  # rounding left a crumb

    def sample(self, items: Sequence[Item], k: int) -> list[Item]:
        """K different positions of `items`, in random order (Fisher and Yates)."""
        pool = list(items)
        for i in range(k):
            j = self.between(i, len(pool) - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:k]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order."""
        return self.sample(items, len(items))

    def dealt(self, items: Sequence[Item], n: int) -> list[Item]:
        """N items in random order, each as often as any other, give or take one."""
        rounds = -(-n // len(items))
        return self.shuffled((self.shuffled(items) * rounds)[:n])
