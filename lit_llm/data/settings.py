"""What a user decides about preparation, and what of it decides the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TooLong = Literal["drop", "error"]
"""What happens to a conversation that is longer than a row."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What of the settings decides the result. Plain values, part of the cache's key."""

    val_fraction: float = 0.01
    """Share held out for validation; 0: none."""

    val_split: Literal["documents", "tails"] = "documents"
    """Whole documents by their hash, or the end of every document: for a single long text."""

    split_seed: int = 0
    """Another seed holds out other documents."""

    deduplicate: bool = True
    """Drop documents that are equal, byte for byte, to an earlier one."""

    tokenizer_bytes: int = 20_000_000
    """Text that a tokenizer is trained on, at most; chosen by hash from the training part."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction={self.val_fraction} is no share: give 0 <= it < 1")
        if self.val_split not in ("documents", "tails"):
            raise ValueError(f"val_split={self.val_split!r}: give documents or tails")
        if self.tokenizer_bytes < 1:
            raise ValueError(f"tokenizer_bytes={self.tokenizer_bytes}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class OnBad:
    """What happens to records that cannot be used; decides whether there is a result, not which."""

    on_bad: Literal["skip", "error"] = "skip"
    """`skip` leaves them out and lists them in the data card; `error` stops at the first."""

    max_bad_share: float = 0.05
    """More of them than this share is an error even so: it is the wrong file or format."""

    def __post_init__(self) -> None:
        if self.on_bad not in ("skip", "error"):
            raise ValueError(f"on_bad={self.on_bad!r}: give skip or error")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share={self.max_bad_share} is no share: give 0 to 1")

    def judge(self, count: int, share: float, first: dict[str, str], folder: Path) -> None:
        """Raise a ValueError where the user does not accept so many.

        Args:
            count: bad records, at least one
            share: of all records
            first: its source and reason
            folder: where bad.jsonl lists them
        """
        where = f"{first['source']}: {first['reason']}"
        if self.on_bad == "error":
            raise ValueError(f"{where}\nrepair the record, or leave such ones out: on_bad=skip")
        if share > self.max_bad_share:
            raise ValueError(
                f"{where}\n{count:,} records ({share:.1%}) are bad, max_bad_share="
                f"{self.max_bad_share}; list: {folder / 'bad.jsonl'}\n"
                "is it the right format? repair them, or raise max_bad_share"
            )
