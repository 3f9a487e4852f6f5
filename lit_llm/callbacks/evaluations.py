"""What was evaluated, as the report shows it: evaluation.json, which `cli.py evaluate` writes."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's file, the oldest first; none if there is no file.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_bytes())
        for entry in entries:
            for result in entry["results"]:
                _rows(entry, result)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no list of evaluations ({error!r}): move it away") from None
    return entries


def evaluations(entries: list[dict[str, Any]]) -> str:
    """A table of all numbers, the latest evaluation first; every text in it is escaped."""
    if not entries:
        return ""
    rows = [
        row
        for entry in reversed(entries)
        for result in entry["results"]
        for row in _rows(entry, result)
    ]
    titles = ("task", "metric", "value", "&#177; stderr", "of", "checkpoint", "when")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _rows(entry: dict[str, Any], result: dict[str, Any]) -> list[str]:
    checkpoint = Path(str(entry["checkpoint"])).name
    rows = []
    for name, metric in result["metrics"].items():
        numbers = (_number(metric["value"]), _number(metric["stderr"]), f"{metric['count']:,}")
        cells = (result["task"], name, *numbers, checkpoint, entry["began"])
        rows.append(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>")
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
