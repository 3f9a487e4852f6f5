"""The texts that a tokenizer is trained on: a bounded, repeatable choice of the training part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_llm.data.clean import texts_of
from lit_llm.data.corpus.base import Text, Unit
from lit_llm.data.scan import good_documents, read_documents
from lit_llm.data.split import cut_tail, held_out, scramble

KEY = 0x746F6B656E  # other bits of the hash decide here than who is held out


@dataclass(frozen=True)
class SampleJob:
    """Read the documents at `places` of `unit`."""

    unit: Unit
    documents: int
    places: np.ndarray
    allowed: np.ndarray
    """Bytes that may be taken of each; cuts only the last one of the whole sample."""
    tail_fraction: float


def choose(
    scans: Sequence[Path],
    drop: Sequence[np.ndarray],
    max_bytes: int,
    val_fraction: float,
    seed: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Choose documents by hash until `max_bytes` are reached.

    Args:
        scans: folders of the scanned units
        drop: for each of them the duplicates
        max_bytes: of text; the last document is cut to fit
        val_fraction: share of documents held out, which are never chosen
        seed: of the split

    Returns:
        For each scan the sorted places of its chosen documents and the bytes allowed of each.
    """
    share = 1.0
    total = sum(int(read_documents(scan)["bytes"].sum()) for scan in scans)
    if total > 2 * max_bytes:
        share = 2 * max_bytes / total  # memory: look at no more than about twice the sample
    while True:
        parts = [
            _candidates(scan, unit, gone, share, val_fraction, seed)
            for unit, (scan, gone) in enumerate(zip(scans, drop, strict=True))
        ]
        rank, unit, place, size = (np.concatenate(column) for column in zip(*parts, strict=True))
        if share >= 1 or size.sum() >= max_bytes:
            break
        share = min(1.0, 2 * share)
    order = np.argsort(rank, kind="stable")
    unit, place, size = unit[order], place[order], size[order]
    before = np.cumsum(size) - size
    taken = before < max_bytes
    unit, place, allowed = unit[taken], place[taken], np.minimum(size, max_bytes - before)[taken]
    chosen = []
    for index in range(len(scans)):
        mine = np.flatnonzero(unit == index)
        mine = mine[np.argsort(place[mine])]
        chosen.append((place[mine], allowed[mine]))
    return chosen


def sample(job: SampleJob) -> list[str]:
    """Read the chosen texts of one unit, in their order."""
    wanted = dict(zip(job.places.tolist(), job.allowed.tolist(), strict=True))
    texts = []
    for place, record in enumerate(good_documents(job.unit, job.documents)):
        if place not in wanted:
            continue
        pieces = texts_of(record)
        if isinstance(record, Text) and job.tail_fraction:
            pieces = [cut_tail(record.text, job.tail_fraction)[0]]
        allowed = wanted[place]
        texts += [piece.encode()[:allowed].decode(errors="ignore") for piece in pieces if piece]
    return texts


def _candidates(
    scan: Path, unit: int, drop: np.ndarray, share: float, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    documents = read_documents(scan)
    rank = scramble(documents["high"], KEY)
    wanted = ~held_out(documents, val_fraction, seed)
    wanted[drop] = False
    if share < 1:
        wanted &= rank < np.uint64(int(share * 2**64))
    place = np.flatnonzero(wanted)
    return rank[place], np.full(len(place), unit), place, documents["bytes"][place]
