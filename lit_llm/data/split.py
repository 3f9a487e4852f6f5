"""Which part of the data is held out for validation."""

from __future__ import annotations

import numpy as np


def held_out(documents: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Decide for each document by its hash whether it is held out.

    A document's side depends on nothing but its text, `fraction` and `seed`: new documents move no
    old one, equal documents are on one side, and a larger fraction keeps what was held out.

    Args:
        documents: as `read_documents` gives them
        fraction: share that is held out, on average
        seed: another seed, another choice
    """
    return scramble(documents["low"], seed) < np.uint64(int(fraction * 2**64))


def cut_tail(text: str, fraction: float) -> tuple[str, str]:
    """Cut a document into what is trained on and its held-out end.

    int(n * 0.9) characters stay where fraction is 0.1: nanoGPT's cut of its Shakespeare. An end
    without letters is not held out alone.
    """
    cut = int(len(text) * (1 - fraction))
    head, tail = text[:cut], text[cut:]
    return (head, tail) if tail.strip() and head.strip() else (text, "")


def scramble(values: np.ndarray, key: int) -> np.ndarray:
    """Mix uint64 values with a key, one to one (SplitMix64, Steele et al., 2014)."""
    mixed = values + np.uint64((key + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
