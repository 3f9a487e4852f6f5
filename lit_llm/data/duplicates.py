"""Which documents have been there before, exactly, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lit_llm.data.scan import read_documents

PER_PASS = 2**23
"""Documents looked at together, 0.5 GB; of more, several passes each look at the hashes with
one remainder. 10^9 documents are 120 passes over 16 GB of hashes: minutes from a warm cache."""


def duplicates(scans: Sequence[Path], per_pass: int = PER_PASS) -> list[np.ndarray]:
    """Find the documents of each scan that equal an earlier one: of equals the first stays.

    Returns:
        For each scan the sorted indices of its documents that are to be dropped, uint32.
    """
    found: list[list[np.ndarray]] = [[] for _ in scans]
    passes = -(-sum(len(read_documents(scan)) for scan in scans) // per_pass)
    for number in range(passes):
        chosen = [_remainder(scan, number, passes) for scan in scans]
        high = np.concatenate([high for high, _, _ in chosen])
        low = np.concatenate([low for _, low, _ in chosen])
        place = np.concatenate([place for _, _, place in chosen])
        unit = np.repeat(np.arange(len(scans), dtype=np.uint32), [len(c[0]) for c in chosen])
        order = np.lexsort((high, low))  # stable: of equals the earlier stays in front
        again = np.zeros(len(order), bool)
        same = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
        again[order[1:][same]] = True
        owners, places = unit[again], place[again]
        for index in np.unique(owners):
            found[index].append(places[owners == index])
    return [np.sort(np.concatenate([np.empty(0, np.uint32), *parts])) for parts in found]


def _remainder(scan: Path, number: int, passes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    documents = read_documents(scan)
    place = np.flatnonzero(documents["low"] % np.uint64(passes) == number)
    return documents["high"][place], documents["low"][place], place.astype(np.uint32)
