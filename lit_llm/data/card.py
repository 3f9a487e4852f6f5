"""The data card: what is in a prepared folder, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lit_llm.data.encode import SPLITS, read_stats
from lit_llm.data.scan import read_bad, read_sums

LISTED = 100
"""Bad records in the card; bad.jsonl beside it has all."""


def data_card(
    scans: Sequence[Path],
    encoded: Sequence[Path],
    duplicates: int,
    tokenizer: dict[str, Any],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Sum up the units. Plain values, and none that depends on time or place.

    Args:
        scans: folders of the scanned units
        encoded: folders of the encoded units
        duplicates: documents that were dropped
        tokenizer: what is to be said of it
        settings: of the preparation
    """
    sums = [read_sums(scan) for scan in scans]
    stats = [read_stats(folder) for folder in encoded]
    bad = sum(unit["bad"] for unit in sums)
    records = bad + sum(unit["documents"] for unit in sums)
    splits = {split: _split([unit[split] for unit in stats]) for split in SPLITS}
    tokens = sum(split["tokens"] for split in splits.values())
    return {
        **splits,
        "bytes_per_token": sum(split["bytes"] for split in splits.values()) / max(tokens, 1),
        "conversations": sum(unit["conversations"] for unit in sums),
        "duplicates_removed": duplicates,
        "bad": {
            "records": bad,
            "share": bad / max(records, 1),
            "listed": list(islice(chain.from_iterable(map(read_bad, scans)), LISTED)),
        },
        "tokenizer": tokenizer,
        "settings": settings,
    }


def card_markdown(card: dict[str, Any]) -> str:
    """Write the card for a person."""
    tokenizer, bad = card["tokenizer"], card["bad"]
    rows = [
        ("documents", "documents"),
        ("bytes", "bytes of text"),
        ("tokens", "tokens"),
        ("trained", "of them trained on"),
        ("longest", "longest document, tokens"),
        ("source", "found at"),
    ]
    lines = ["# Data card", "", "| | train | val |", "|---|---:|---:|"]
    for key, label in rows:
        train, val = (card[split][key] for split in SPLITS)
        lines.append(f"| {label} | {_number(train)} | {_number(val)} |")
    lines += [
        "",
        f"- {card['bytes_per_token']:.2f} bytes per token ({tokenizer['class']}, "
        f"{tokenizer['vocab_size']:,} ids, {tokenizer['fingerprint'][:12]})",
        f"- {_unused(tokenizer['unused_pieces'])}",
        f"- {card['conversations']:,} conversations",
        f"- {card['duplicates_removed']:,} exact duplicates removed",
        f"- {bad['records']:,} bad records left out ({bad['share']:.2%})",
        *(f"- {key}: {value}" for key, value in card["settings"].items()),
    ]
    if bad["listed"]:
        more = bad["records"] - len(bad["listed"])
        lines += ["", "## Bad records", ""]
        lines += [f"- `{record['source']}`: {record['reason']}" for record in bad["listed"]]
        lines += [f"- and {more:,} more: see bad.jsonl"] if more else []
    return "\n".join(lines) + "\n"


def _unused(pieces: dict[str, Any]) -> str:
    examples = ", ".join(f"`{piece!r}`" for piece in pieces["examples"])
    return f"{pieces['count']:,} pieces of the tokenizer unused" + (examples and f": {examples}")


def _split(units: list[dict[str, Any]]) -> dict[str, Any]:
    sums = {
        key: sum(unit[key] for unit in units) for key in ("documents", "bytes", "tokens", "trained")
    }
    first = max(units, key=lambda unit: unit["longest"])  # of equals the first
    return {**sums, "longest": first["longest"], "source": first["source"]}


def _number(value: int | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
