"""The prepared folder: the encoded units as one, with tokenizer, data card and manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lit_llm.data.atomic import new_folder
from lit_llm.data.card import card_markdown, data_card
from lit_llm.data.join import join_shards
from lit_llm.data.scan import read_bad
from lit_llm.data.sealed import MANIFEST, damaged, seal, sha256
from lit_llm.data.settings import Preparation
from lit_llm.data.shards import Shards
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.load import load_tokenizer, save_tokenizer


@dataclass(frozen=True)
class Prepared:
    """A corpus that is ready to train on."""

    folder: Path
    tokenizer: Tokenizer
    train: Path
    """Folder for `Shards`."""
    val: Path | None
    """Folder for `Shards`; None with val_fraction=0."""
    card: dict[str, Any]
    """The data card, plain values."""
    work: dict[str, int]
    """Units that were scanned and encoded to get here; zeros where all was there."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest, which has that of all other files: equal data, equal value."""
        return sha256(self.folder / MANIFEST)

    def verify(self) -> int:
        """Compare every file, those of both splits and of the tokenizer, with its SHA-256.

        Returns:
            bytes of the token files that were read

        Raises:
            ValueError: a file is missing or is not what was written.
        """
        _require(self.folder, damaged(self.folder, threads=os.cpu_count() or 1))
        for split in filter(None, (self.train, self.val)):
            Shards(split).check()
        return sum(path.stat().st_size for path in self.folder.rglob("*.bin"))


def open_prepared(
    folder: Path, tokenizer: Tokenizer | None = None, work: dict[str, int] | None = None
) -> Prepared:
    """Open a prepared folder.

    Args:
        folder: one of cache_dir/prepared/
        tokenizer: the one that it was prepared with, if it is at hand; else it is loaded
        work: what it took to prepare it

    Raises:
        ValueError: the folder is not complete, or a file is damaged. Token files are compared by
            their size alone: `Prepared.verify` reads them.
    """
    _require(folder, damaged(folder, tokens=False))
    card = _read_card(folder / "card.json")
    val = folder / "val" if card["settings"]["val_fraction"] else None
    for split in filter(None, (folder / "train", val)):
        Shards(split)
    tokenizer = tokenizer or load_tokenizer(folder / "tokenizer")
    work = work or {"scanned": 0, "encoded": 0}
    return Prepared(folder, tokenizer, folder / "train", val, card, work)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_bytes())
        float(card["settings"]["val_fraction"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} does not describe data: delete {path.parent} and prepare again"
        ) from None
    return card


def assemble(
    target: Path,
    scans: Sequence[Path],
    encoded: Sequence[Path],
    dropped: int,
    tokenizer: Tokenizer,
    settings: Preparation,
) -> None:
    """Make a prepared folder of units.

    Raises:
        ValueError: a split has no document at all.
    """
    about = {
        "class": type(tokenizer).__name__,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint,
        "unused_pieces": _unused_pieces(tokenizer, [unit / "train" for unit in encoded]),
    }
    card = data_card(scans, encoded, dropped, about, asdict(settings))
    with new_folder(target) as folder:
        _require_documents(card)
        for split in ("train", "val") if settings.val_fraction else ("train",):
            join_shards(folder / split, [unit / split for unit in encoded])
        (folder / "tokenizer").mkdir()
        save_tokenizer(tokenizer, folder / "tokenizer")
        _write(folder / "card.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
        _write(folder / "card.md", card_markdown(card))
        with (folder / "bad.jsonl").open("w", encoding="utf-8", newline="\n") as handle:
            for record in chain.from_iterable(map(read_bad, scans)):
                handle.write(json.dumps(record) + "\n")
        seal(folder)


def _unused_pieces(tokenizer: Tokenizer, folders: Sequence[Path]) -> dict[str, Any]:
    """Pieces of several bytes that no training text uses: rows of the embedding without a use."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for shards in map(Shards, folders):
        for tokens in shards.all_tokens():
            counts += np.bincount(tokens, minlength=len(counts))
    pieces = [tokenizer.token_bytes(id) for id in np.flatnonzero(counts == 0).tolist()]
    unused = [piece.decode(errors="replace") for piece in pieces if len(piece) > 1]
    return {"count": len(unused), "examples": unused[:10]}


def _require_documents(card: dict[str, Any]) -> None:
    settings = card["settings"]
    wanted = ("train", "val") if settings["val_fraction"] else ("train",)
    for split in wanted:
        if not card[split]["documents"]:
            total = sum(card[name]["documents"] for name in ("train", "val"))
            raise ValueError(
                f"no document for {split}: {total} in all, val_fraction={settings['val_fraction']}"
                f", val_split={settings['val_split']}\ngive more text or another val_fraction; "
                "for few long texts val_split=tails; without validation val_fraction=0"
            )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _require(folder: Path, fault: Path | None) -> None:
    if fault is not None:
        state = "damaged" if fault.is_file() else "missing"
        raise ValueError(f"{fault} is {state}: delete {folder} and prepare again")
