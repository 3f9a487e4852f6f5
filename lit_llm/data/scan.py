"""The first look at a unit: what is bad, what each document's hash is, how large it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_llm.data.atomic import new_folder
from lit_llm.data.clean import byte_count, check, document_hash
from lit_llm.data.corpus.base import Bad, Conversation, Text, Unit
from lit_llm.data.sealed import seal

DOCUMENT = np.dtype([("high", "<u8"), ("low", "<u8"), ("bytes", "<i8"), ("chat", "?")])


@dataclass(frozen=True)
class ScanJob:
    """Scan `unit`, whose fingerprint is known, into `folder`."""

    unit: Unit
    fingerprint: str
    folder: Path


def scan(job: ScanJob) -> None:
    """Read a unit once and write what the later steps have to know of it.

    documents.bin has an entry for each good document, bad.jsonl a line for each bad record,
    scan.json the sums, manifest.json the hashes of all that. Nothing of it depends on settings,
    so a changed setting scans nothing again.

    Raises:
        ValueError: the unit's content changed in between.
    """
    bad, good, chats, size = 0, 0, 0, 0
    with new_folder(job.folder, durable=False) as folder:
        with (
            (folder / "documents.bin").open("wb") as documents,
            (folder / "bad.jsonl").open("w", encoding="utf-8", newline="\n") as faults,
        ):
            for record in map(check, job.unit.read()):
                if isinstance(record, Bad):
                    bad += 1
                    line = {"source": record.source, "reason": record.reason}
                    faults.write(json.dumps(line) + "\n")
                    continue
                key, bytes_ = document_hash(record), byte_count(record)
                chat = isinstance(record, Conversation)
                high, low = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
                documents.write(np.array([(high, low, bytes_, chat)], DOCUMENT).tobytes())
                good, chats, size = good + 1, chats + chat, size + bytes_
        require_unchanged(job.unit, job.fingerprint)
        sums = {"documents": good, "conversations": chats, "bytes": size, "bad": bad}
        (folder / "scan.json").write_text(json.dumps(sums) + "\n", encoding="utf-8")
        seal(folder)


def read_documents(folder: Path) -> np.ndarray:
    """Entries of a scan's good documents, in their order; dtype DOCUMENT."""
    return np.fromfile(folder / "documents.bin", DOCUMENT)


def read_sums(folder: Path) -> dict[str, int]:
    """Counts of a scan: documents, conversations (part of them), bytes, bad."""
    return json.loads((folder / "scan.json").read_text(encoding="utf-8"))


def read_bad(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield {"source", "reason"} of each bad record."""
    with (folder / "bad.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def good_documents(unit: Unit, expected: int) -> Iterator[Text | Conversation]:
    """Yield the good documents of a unit again.

    Raises:
        ValueError: there is another number of them than the scan found.
    """
    count = 0
    for record in map(check, unit.read()):
        if not isinstance(record, Bad):
            count += 1
            if count > expected:
                break
            yield record
    if count != expected:
        raise ValueError(
            f"{unit.name} held {expected} documents at first and other ones when read again: "
            "its read() must yield the same each time"
        )


def require_unchanged(unit: Unit, fingerprint: str) -> None:
    """Raise a ValueError where a unit is not any more what it was: a file was written to."""
    if unit.fingerprint() != fingerprint:
        raise ValueError(f"{unit.name} changed while it was read: run again when it is at rest")
