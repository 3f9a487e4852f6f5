"""How to learn from a fair part of a corpus whose length is not known yet?"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable


def sample(items: Iterable[str], max_chars: int) -> list[str]:
    """Items of at most `max_chars` characters in all, evenly drawn, in their order.

    Each item has a priority that its index alone decides; those of the lowest priorities stay. So
    one pass in bounded memory draws from all of the corpus, and draws the same items again.
    """
    kept: list[tuple[int, int, str]] = []  # a heap with the highest priority on top
    chars, limit = 0, 2**64
    for index, item in enumerate(items):
        priority = _priority(index)
        if priority >= limit:
            continue
        heapq.heappush(kept, (-priority, index, item))
        chars += len(item)
        while chars > max_chars:
            highest, _, dropped = heapq.heappop(kept)
            chars -= len(dropped)
            limit = -highest  # who comes late has no better chance than who was dropped
    return [item for _, _, item in sorted(kept, key=lambda entry: entry[1])]


def _priority(index: int) -> int:
    digest = hashlib.blake2b(index.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
