"""The result of a measurement: a table on the terminal, a JSON file, and which bars are met."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from lit_llm.callbacks.environment import hardware
from lit_llm.planning.peak_flops import device_name

ROOT = Path(__file__).parents[1]
BARS = ROOT / "benchmarks/bars.yaml"
PEERS = {"torch", "transformers", "litgpt", "litdata", "xllamacpp", "gguf", "numpy"}
HOLDS_IN = 0.8  # of its rounds: four of five
console = Console(width=120)


class Result:
    """Rows of a measurement, on the terminal and in a file that is written anew after each.

    Args:
        name: of the file, and in bars.yaml
        columns: of the table, the first of which is `name`
        device: that was measured
        dry_run: nothing is measured; the code only runs through
    """

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
        dry_run: bool = False,
    ) -> None:
        self.columns = columns
        self.values: dict[str, Any] = {
            **machine(device),
            "dry_run": dry_run,
            "rows": [],
            "not_run": [],
            "bars": {},
        }
        self._bars: dict[str, dict[str, Any]] = read_bars().get(name, {})
        self.path = results_folder() / f"{name}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        on, torch_version = self.values["device"], self.values["torch"]
        words = f"{name}: {on}, torch {torch_version}" + ", DRY RUN" * dry_run
        console.print(words, highlight=False)
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

    def bar(self, name: str, values: Sequence[float]) -> None:
        """Hold a measure against its bar; `values` are one of each round."""
        self.values["bars"][name] = judged(self._bars[name], values)
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
        for name, bar in self.values["bars"].items():
            console.print(f"{name}: {bar_words(bar)}", highlight=False, markup=False)
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


def read_bars() -> dict[str, dict[str, dict[str, Any]]]:
    """Bars by table and name."""
    return yaml.safe_load(BARS.read_text(encoding="utf-8"))


def judged(bar: dict[str, Any], values: Sequence[float]) -> dict[str, Any]:
    """A bar with what was measured, and whether it is met: in four of five rounds."""
    if "at_least" in bar:
        holds = sum(value >= bar["at_least"] for value in values)
    else:
        holds = sum(value <= bar["at_most"] for value in values)
    met = len(values) > 0 and holds >= HOLDS_IN * len(values)
    # A round in which nothing could be measured holds no bar, and has no place in the order.
    measured = [value for value in values if not math.isnan(value)]
    median = statistics.median(measured) if measured else None
    return {**bar, "values": list(values), "median": median, "holds": holds, "met": met}


def bar_words(bar: dict[str, Any]) -> str:
    """A judged bar in a line."""
    if not bar["values"]:
        return "nothing measured: NOT MET"
    sign, limit = (">=", bar["at_least"]) if "at_least" in bar else ("<=", bar["at_most"])
    verdict = "met" if bar["met"] else "NOT MET"
    rounds = f"in {bar['holds']} of {len(bar['values'])}"
    return f"{bar['median']:.3g}, {sign} {limit} {rounds}: {verdict}"


def results_folder() -> Path:
    return Path(os.environ.get("OUT") or ROOT / "benchmarks/results")


def machine(here: torch.device) -> dict[str, Any]:
    """Versions, device, commit and date, for the result."""
    return {
        "command": os.environ.get("BENCH_COMMAND", " ".join(sys.argv)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "device": device_name(here) if here.type != "cpu" else hardware()["processor"],
        "hardware": hardware(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "lightning", "transformers", "jsonargparse")},
        "peers": peers(),
    }


def peers() -> dict[str, str]:
    """Versions in the peers' environment; empty where there is none."""
    folders = [str(folder) for folder in ROOT.glob(".venv-peers/lib/python*/site-packages")]
    found = metadata.distributions(path=folders) if folders else ()
    return {d.name: d.version for d in found if d.name in PEERS}


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
