"""The second look at a unit: its documents as token shards, train and val apart."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lit_llm.data.atomic import new_folder
from lit_llm.data.clean import byte_count
from lit_llm.data.corpus.base import Conversation, Text, Unit
from lit_llm.data.scan import good_documents, read_documents, require_unchanged
from lit_llm.data.sealed import seal
from lit_llm.data.shards import ShardWriter
from lit_llm.data.split import cut_tail, held_out
from lit_llm.tokenizer.base import Tokenizer

BATCH_BYTES = 2**20
SPLITS = ("train", "val")


class Parcel:
    """A tokenizer on its way to the workers, each of which unpacks it once and not for each job."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pickled = pickle.dumps(tokenizer)

    def open(self) -> Tokenizer:
        """The tokenizer."""
        return _unpickled(self._pickled)


@lru_cache(maxsize=1)
def _unpickled(data: bytes) -> Tokenizer:
    return pickle.loads(data)


@dataclass(frozen=True)
class EncodeJob:
    """Encode the good documents of `unit`, without those at `drop`, into `folder`."""

    unit: Unit
    fingerprint: str
    scan: Path
    drop: np.ndarray
    tokenizer: Parcel
    has_mask: bool
    val_fraction: float
    val_split: str
    seed: int
    folder: Path


def encode(job: EncodeJob) -> None:
    """Write train/, val/, stats.json and manifest.json.

    A text is stored as bos + its tokens + eos (some published models go without bos), a
    conversation as the tokenizer's template says.

    Raises:
        ValueError: the unit's content changed in between, or the tokenizer lacks a control token.
    """
    tokenizer = job.tokenizer.open()
    stats = {split: _Stats() for split in SPLITS}
    with new_folder(job.folder, durable=False) as folder:
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(
                    ShardWriter(
                        folder / split,
                        vocab_size=tokenizer.vocab_size,
                        tokenizer_fingerprint=tokenizer.fingerprint,
                        has_mask=job.has_mask,
                        durable=False,
                    )
                )
                for split in SPLITS
            }
            for batch in _batches(_assigned(job)):
                documents = [document for _, document in batch]
                for (split, document), (ids, mask) in zip(
                    batch, _tokens(documents, tokenizer), strict=True
                ):
                    writers[split].append(ids, mask)
                    stats[split].add(document, len(ids), len(ids) if mask is None else sum(mask))
        require_unchanged(job.unit, job.fingerprint)
        plain = {split: stats[split].__dict__ for split in SPLITS}
        (folder / "stats.json").write_text(json.dumps(plain) + "\n", encoding="utf-8")
        seal(folder)


def read_stats(folder: Path) -> dict[str, dict[str, Any]]:
    """Counts of an encoded unit by split: documents, bytes, tokens, trained, longest, source."""
    return json.loads((folder / "stats.json").read_text(encoding="utf-8"))


class _Stats:
    def __init__(self) -> None:
        self.documents = self.bytes = self.tokens = self.trained = self.longest = 0
        self.source = ""

    def add(self, document: Text | Conversation, tokens: int, trained: int) -> None:
        self.documents += 1
        self.bytes += byte_count(document)
        self.tokens += tokens
        self.trained += trained
        if tokens > self.longest:
            self.longest, self.source = tokens, document.source


def _assigned(job: EncodeJob) -> Iterator[tuple[str, Text | Conversation]]:
    """Yield each document that stays, with its split."""
    hashes = read_documents(job.scan)
    stays = np.ones(len(hashes), bool)
    stays[job.drop] = False
    val = held_out(hashes, job.val_fraction, job.seed)
    for place, document in enumerate(good_documents(job.unit, len(hashes))):
        if not stays[place]:
            continue
        if job.val_split == "documents":
            yield SPLITS[int(val[place])], document
            continue
        assert isinstance(document, Text)
        for split, text in zip(SPLITS, cut_tail(document.text, job.val_fraction), strict=True):
            if text:
                yield split, Text(text, document.source)


def _batches(
    documents: Iterator[tuple[str, Text | Conversation]],
) -> Iterator[list[tuple[str, Text | Conversation]]]:
    batch, size = [], 0
    for split, document in documents:
        batch.append((split, document))
        size += len(document.text) if isinstance(document, Text) else 1000
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tokens(
    documents: list[Text | Conversation], tokenizer: Tokenizer
) -> Iterator[tuple[np.ndarray | list[int], list[bool] | None]]:
    texts = [document.text for document in documents if isinstance(document, Text)]
    encoded = iter(tokenizer.encode_arrays(texts))
    bos = tokenizer.document([]) if texts else []
    eos = [tokenizer.special_id("eos")] if texts else []
    for document in documents:
        if isinstance(document, Text):
            yield np.concatenate([bos, np.asarray(next(encoded), np.int64), eos]), None
        else:
            yield tokenizer.chat_template.encode(tokenizer, document.messages)
