"""From a corpus and a tokenizer to a folder of token shards, once.

    cache_dir/
      scan/<key>/        a unit's first look; key: its content
      tokenizer/<key>/   a trained tokenizer; key: its recipe and the texts
      encode/<key>/      a unit's tokens; key: its content, the tokenizer, the split, duplicates
      prepared/<key>/    train/, val/, tokenizer/, card.md, card.json, bad.jsonl, manifest.json

Every folder is complete or not there, and named by everything that determines its content: a
preparation that was killed goes on where it was, and when one file changes only its unit is redone.
Deleting the cache, or any folder in it, is always safe while nothing runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from lit_llm.data.assemble import Prepared, assemble, open_prepared
from lit_llm.data.atomic import remove_leftovers
from lit_llm.data.corpus.base import Corpus
from lit_llm.data.keys import class_name, key_of
from lit_llm.data.settings import OnBad, Preparation
from lit_llm.data.stages import (
    Known,
    drop_duplicates,
    encode_units,
    know,
    scan_units,
    train_tokenizer,
)
from lit_llm.data.workers import Workers
from lit_llm.tokenizer.base import Tokenizer

__all__ = ["Preparation", "Prepared", "open_prepared", "prepare", "prepare_all"]


def prepare(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    cache_dir: Path,
    val_fraction: float = 0.01,
    val_split: Literal["documents", "tails"] = "documents",
    split_seed: int = 0,
    deduplicate: bool = True,
    tokenizer_bytes: int = 20_000_000,
    on_bad: Literal["skip", "error"] = "skip",
    max_bad_share: float = 0.05,
    workers: int | None = None,
    progress: bool = True,
) -> Prepared:
    """Prepare one corpus, or find it prepared: `prepare_all` with a single one."""
    settings = Preparation(
        val_fraction=val_fraction,
        val_split=val_split,
        split_seed=split_seed,
        deduplicate=deduplicate,
        tokenizer_bytes=tokenizer_bytes,
    )
    (prepared,) = prepare_all(
        [corpus],
        tokenizer,
        settings,
        cache_dir=cache_dir,
        bad=OnBad(on_bad=on_bad, max_bad_share=max_bad_share),
        workers=workers,
        progress=progress,
    )
    return prepared


def prepare_all(
    corpora: Sequence[Corpus],
    tokenizer: Tokenizer,
    settings: Preparation,
    *,
    cache_dir: Path,
    bad: OnBad,
    workers: int | None = None,
    progress: bool = True,
) -> list[Prepared]:
    """Prepare several corpora with one tokenizer, or find them prepared.

    Same inputs, same bytes, whatever the number of workers. Safe where several processes ask for
    the same: one works, the others wait for it.

    Args:
        corpora: each gets a folder of its own, so that they can be weighted
        tokenizer: trained, or a recipe: then it is trained on a sample of all corpora
        settings: what decides the result
        cache_dir: where everything goes; any number of preparations share it
        bad: what happens to records that cannot be used
        workers: processes; 0 or 1: this one; None: one per core
        progress: draw a bar

    Raises:
        ValueError: nothing to read, too many bad records, or a split without any document.
    """
    cache = Path(cache_dir)
    with Workers(workers, progress) as pool:
        groups = [know(corpus, cache, pool) for corpus in corpora]
        identity = _identity(tokenizer, groups)
        keys = [[unit.key for unit in group] for group in groups]
        targets = [
            cache / "prepared" / key_of(identity, asdict(settings), group_keys)
            for group_keys in keys
        ]
        work = {"scanned": 0, "encoded": 0}
        if not all(target.is_dir() for target in targets):
            with _locked(cache, pool):
                remove_leftovers(cache)
                work = _make(groups, targets, tokenizer, settings, bad, pool)
    given = tokenizer if tokenizer.trained else None
    prepared = [open_prepared(target, given, work) for target in targets]
    for one in prepared:  # made under other limits, perhaps
        counts = one.card["bad"]
        if counts["records"]:
            bad.judge(counts["records"], counts["share"], counts["listed"][0], one.folder)
    return prepared


def _identity(tokenizer: Tokenizer, groups: list[list[Known]]) -> str:
    """What of the tokenizer decides the tokens, known before it is trained."""
    kind = class_name(tokenizer)
    if tokenizer.trained:
        return key_of(kind, tokenizer.identity)
    return key_of(kind, tokenizer.recipe(), [[unit.key for unit in group] for group in groups])


@contextmanager
def _locked(cache: Path, pool: Workers) -> Iterator[None]:
    """One process at a time writes; a lock dies with its process, however that ends.

    Raises:
        ValueError: the cache cannot be written, and not all that is asked for is in it.
    """
    lock = FileLock(cache / ".lock")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            pool.say(f"another process prepares data in {cache}: waiting for it")
            lock.acquire()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise ValueError(
            f"data.cache_dir={cache} lacks this data, prepared, and cannot be written ({reason}): "
            "give another place"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _make(
    groups: list[list[Known]],
    targets: list[Path],
    tokenizer: Tokenizer,
    settings: Preparation,
    bad: OnBad,
    pool: Workers,
) -> dict[str, int]:
    """Make the targets that are missing; return how many units were scanned and encoded."""
    scanned = sum(scan_units(group, bad, pool) for group in groups)
    drops = [drop_duplicates(group, settings) for group in groups]
    cache = targets[0].parent.parent
    if not tokenizer.trained:
        tokenizer = train_tokenizer(tokenizer, cache, groups, drops, settings, pool)
    encoded = 0
    for group, drop, target in zip(groups, drops, targets, strict=True):
        folders, new = encode_units(group, drop, tokenizer, cache, settings, pool)
        encoded += new
        if not target.is_dir():
            scans = [unit.scan for unit in group]
            assemble(target, scans, folders, sum(map(len, drop)), tokenizer, settings)
    return {"scanned": scanned, "encoded": encoded}
