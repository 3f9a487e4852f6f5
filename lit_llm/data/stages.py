"""The stages of preparation, each over all units of a corpus and each skipping what is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from lit_llm.data.atomic import discard, new_folder
from lit_llm.data.corpus.base import Corpus, Unit
from lit_llm.data.duplicates import duplicates
from lit_llm.data.encode import EncodeJob, Parcel, encode
from lit_llm.data.keys import class_name, key_of
from lit_llm.data.sample import SampleJob, choose, sample
from lit_llm.data.scan import ScanJob, read_bad, read_sums, scan
from lit_llm.data.sealed import damaged, seal
from lit_llm.data.settings import OnBad, Preparation
from lit_llm.data.workers import Workers
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.load import load_tokenizer, save_tokenizer

J = TypeVar("J")


@dataclass(frozen=True)
class Known:
    """A unit whose content was looked at."""

    unit: Unit
    fingerprint: str
    key: str
    scan: Path


def know(corpus: Corpus, cache: Path, pool: Workers) -> list[Known]:
    """List the units of a corpus with what their content is.

    Raises:
        ValueError: the corpus is empty, or two units have one name.
    """
    units = corpus.units()
    names = [unit.name for unit in units]
    if not units or len(set(names)) < len(names):
        raise ValueError(
            f"{type(corpus).__name__}.units() gave {len(units)} units with {len(set(names))} "
            "names: give one at least, and each a name of its own"
        )
    known = []
    prints = pool.map("looking for changes", _fingerprint, units)
    for unit, fingerprint in zip(units, prints, strict=True):
        key = key_of(class_name(unit), unit.name, fingerprint)
        known.append(Known(unit, fingerprint, key, cache / "scan" / key))
    return known


def scan_units(group: list[Known], bad: OnBad, pool: Workers) -> int:
    """Scan the units that were not scanned yet; return how many.

    Raises:
        ValueError: there are more bad records than the user accepts, or no records at all.
    """
    todo = _missing(group, [unit.scan for unit in group], pool)
    jobs = [ScanJob(unit.unit, unit.fingerprint, unit.scan) for unit in todo]
    for unit, _ in zip(todo, pool.map("reading", scan, jobs), strict=True):
        if bad.on_bad == "error":
            _judge([unit], bad)
    _judge(group, bad)
    if not any(read_sums(unit.scan)["documents"] for unit in group):
        first = group[0].unit.name
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        raise ValueError(f"no text in {first}{more}: all is empty; check corpus.path and glob")
    return len(todo)


def drop_duplicates(group: list[Known], settings: Preparation) -> list[np.ndarray]:
    """Places of the documents of each unit that are left out, uint32."""
    if settings.deduplicate:
        return duplicates([unit.scan for unit in group])
    return [np.empty(0, np.uint32) for _ in group]


def train_tokenizer(
    tokenizer: Tokenizer,
    cache: Path,
    groups: list[list[Known]],
    drops: list[list[np.ndarray]],
    settings: Preparation,
    pool: Workers,
) -> Tokenizer:
    """Train a recipe on a sample of all corpora, or find it trained."""
    units = [unit for group in groups for unit in group]
    drop = [places for group in drops for places in group]
    held_out, tail = settings.val_fraction, 0.0
    if settings.val_split == "tails":
        held_out, tail = tail, held_out
    scans = [unit.scan for unit in units]
    chosen = choose(scans, drop, settings.tokenizer_bytes, held_out, settings.split_seed)
    jobs = [
        SampleJob(unit.unit, read_sums(unit.scan)["documents"], places, allowed, tail)
        for unit, (places, allowed) in zip(units, chosen, strict=True)
        if len(places)
    ]
    texts = [text for part in pool.map("tokenizer's sample", sample, jobs) for text in part]
    folder = cache / "tokenizer" / key_of(class_name(tokenizer), tokenizer.recipe(), texts)
    if _missing([folder], [folder], pool):
        pool.say(f"training {type(tokenizer).__name__} on {len(texts):,} texts")
        with new_folder(folder) as temporary:
            save_tokenizer(tokenizer.train(texts), temporary)
            seal(temporary)
    return load_tokenizer(folder)


def encode_units(
    group: list[Known],
    drop: list[np.ndarray],
    tokenizer: Tokenizer,
    cache: Path,
    settings: Preparation,
    pool: Workers,
) -> tuple[list[Path], int]:
    """Encode the units that were not encoded yet; return the folders of all, and how many."""
    has_mask = any(read_sums(unit.scan)["conversations"] for unit in group)
    if has_mask and settings.val_split == "tails" and settings.val_fraction:
        raise ValueError("val_split=tails would cut conversations apart: use documents")
    split = (settings.val_fraction, settings.val_split, settings.split_seed)
    parcel, jobs = Parcel(tokenizer), []
    for unit, places in zip(group, drop, strict=True):
        key = key_of(
            unit.key, class_name(tokenizer), tokenizer.identity, has_mask, split, places.tolist()
        )
        jobs.append(
            EncodeJob(
                unit=unit.unit,
                fingerprint=unit.fingerprint,
                scan=unit.scan,
                drop=places,
                tokenizer=parcel,
                has_mask=has_mask,
                val_fraction=settings.val_fraction,
                val_split=settings.val_split,
                seed=settings.split_seed,
                folder=cache / "encode" / key,
            )
        )
    todo = _missing(jobs, [job.folder for job in jobs], pool)
    for _ in pool.map("text to tokens", encode, todo):
        pass
    return [job.folder for job in jobs], len(todo)


def _missing(jobs: Sequence[J], folders: Sequence[Path], pool: Workers) -> list[J]:
    """The jobs whose folder is not there, or was damaged since: then it is deleted."""
    there = [folder for folder in folders if folder.is_dir()]
    for folder, fault in zip(there, pool.map("verifying the cache", damaged, there), strict=True):
        if fault is not None:
            pool.say(f"{fault} is damaged: making it again")
            discard(folder)
    return [job for job, folder in zip(jobs, folders, strict=True) if not folder.is_dir()]


def _fingerprint(unit: Unit) -> str:
    return unit.fingerprint()


def _judge(group: list[Known], bad: OnBad) -> None:
    sums = [read_sums(unit.scan) for unit in group]
    count = sum(unit["bad"] for unit in sums)
    if count:
        worst = next(unit for unit, counts in zip(group, sums, strict=True) if counts["bad"])
        share = count / (count + sum(unit["documents"] for unit in sums))
        bad.judge(count, share, next(read_bad(worst.scan)), worst.scan)
