"""The result of a part of benchmarks/gpu.sh: a table on the terminal and a JSON file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import DRY, ROOT, device
from lit_llm.planning.peak_flops import device_name

console = Console(width=120)


class Result:
    """Rows of a part, on the terminal and in a file that is written anew after each of them."""

    def __init__(self, part: str, columns: Sequence[str]) -> None:
        self.columns = columns
        self.values: dict[str, Any] = {**machine(), "rows": [], "not_run": []}
        folder = Path(os.environ.get("OUT") or ROOT / "benchmarks/results")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"gpu-{part}.json"
        gpu, torch_version = self.values["gpu"], self.values["torch"]
        console.print(f"{part}: {gpu}, torch {torch_version}" + ", DRY RUN" * DRY, highlight=False)
        self.write()

    def add(self, **row: Any) -> None:
        self.values["rows"].append(row)
        self.write()
        shown = (f"{name} {_text(row.get(name))}" for name in self.columns[1:])
        name = row[self.columns[0]]
        console.print(f"  {name}: {', '.join(shown)}", highlight=False, markup=False)

    def not_run(self, name: str, reason: str) -> None:
        self.values["not_run"].append({"name": name, "reason": reason})
        self.write()
        console.print(f"  not run: {name}: {reason}", highlight=False, markup=False)

    def settings(self, **values: Any) -> None:
        self.values.setdefault("settings", {}).update(values)
        self.write()

    def write(self) -> None:
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.values, indent=2, default=str) + "\n")
        temporary.replace(self.path)

    def show(self) -> None:
        """Print the table."""
        table = Table(*self.columns[:1])
        for name in self.columns[1:]:
            table.add_column(name.replace("_", " "), justify="right")
        for row in self.values["rows"]:
            table.add_row(*(_text(row.get(name)) for name in self.columns))
        console.print(table)
        for missing in self.values["not_run"]:
            line = f"not run: {missing['name']}: {missing['reason']}"
            console.print(line, highlight=False, markup=False)
        console.print(f"written: {self.path}", highlight=False, soft_wrap=True)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def machine() -> dict[str, Any]:
    """Versions, device, commit and date, for the result."""
    here = device()
    return {
        "command": os.environ.get("GPU_COMMAND", " ".join(sys.argv)),
        "dry_run": DRY,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "gpu": device_name(here),
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "lightning", "transformers", "jsonargparse")},
    }


def version(package: str) -> str | None:
    """Of an installed package; None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    with suppress(OSError):
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return found.stdout.strip() if found.returncode == 0 else None
    return None
