"""Write the tables of docs/speed.md and README.md from the files in benchmarks/results/.

    python -m benchmarks.speed_page

What stands between `<!-- speed: NAME -->` and `<!-- end -->` is written anew, the rest stays. A
test holds the pages against the files: no number stands there that no run has measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.result import ROOT, read_bars

RESULTS = ROOT / "benchmarks/results"
PAGES = (ROOT / "docs/speed.md", ROOT / "README.md")
# What README.md shows: ratios only, for absolute times are the machine's.
SHOWN: dict[tuple[str, str], str] = {
    (
        "train-throughput",
        "a-best-mode",
    ): "training 6 layers of width 384, tokens/s: the best peer's",
    ("train-throughput", "b-best-mode"): "training gpt-124m, tokens/s: the best peer's",
    ("memory", "rss"): "training gpt-124m, peak memory (less is better): the best peer's",
    (
        "time-to-loss",
        "to-1.88",
    ): "Shakespeare by characters, seconds to a loss of 1.88 (less is better): nanoGPT's",
    ("decode", "batch-1-bf16-transformers"): "one prompt, bf16, tokens/s: transformers'",
    ("decode", "batch-1-int8-transformers"): "int8 weights, tokens/s: transformers' in bf16",
    ("decode", "batch-16-bf16-transformers"): "16 prompts, bf16, tokens/s: transformers'",
    ("prefill", "bf16-transformers"): "reading a prompt of 1024 tokens, bf16: transformers'",
    ("tokenize-and-pack", "litgpt"): "text to shards, MB/s: litgpt's",
}

Results = Mapping[str, dict[str, Any]]
"""What the files say, by table."""


def main() -> None:
    found = results()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(filled(text, found), encoding="utf-8")


def results(folder: Path = RESULTS) -> Results:
    """The files of a folder, those of dry runs left out."""
    found = {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*.json")}
    return {name: result for name, result in sorted(found.items()) if not result["dry_run"]}


def filled(text: str, found: Results) -> str:
    """A page with its tables written anew.

    Raises:
        ValueError: it asks for a table that there is not.
    """

    def body(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise ValueError(f"<!-- speed: {name} -->: there are {', '.join(TABLES)}")
        return f"<!-- speed: {name} -->\n{TABLES[name](found)}\n<!-- end -->"

    return re.sub(r"<!-- speed: (.*?) -->\n.*?<!-- end -->", body, text, flags=re.S)


# -- tables ----------------------------------------------------------------------------------------


def cpu_bars(found: Results) -> str:
    """Every bar of the CPU tables."""
    return _bars(found, lambda table: not table.startswith("gpu-"))


def gpu_bars(found: Results) -> str:
    """Every bar of benchmarks/gpu.sh."""
    return _bars(found, lambda table: table.startswith("gpu-"))


def _bars(found: Results, is_shown: Callable[[str], bool]) -> str:
    lines = [
        "| table: bar | measure | to reach | median | holds in | met |",
        "|---|---|---|---|---|---|",
    ]
    met = total = 0
    for table, bars in read_bars().items():
        if not is_shown(table):
            continue
        for name, bar in bars.items():
            result = found.get(table, {}).get("bars", {}).get(name)
            total += 1
            met += result is not None and result["met"]
            lines.append(
                f"| {table}: {name} | {bar['measure']} | {_limit(bar)} | {_cells(result)} |"
            )
    lines += ["", f"{met} of {total} bars met. {_machines(found, is_shown)}"]
    return "\n".join(lines)


def _limit(bar: dict[str, Any]) -> str:
    return f">= {bar['at_least']:,}" if "at_least" in bar else f"<= {bar['at_most']:,}"


def _cells(result: dict[str, Any] | None) -> str:
    if result is None or result["median"] is None:
        return "not measured | - | no"
    verdict = "yes" if result["met"] else "**no**"
    return f"{_number(result['median'])} | {result['holds']} of {len(result['values'])} | {verdict}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _machines(found: Results, is_shown: Callable[[str], bool]) -> str:
    """On what it was measured."""
    places = {
        f"{result['device']}, {result['hardware']['cores']} cores, torch {result['torch']}"
        for name, result in found.items()
        if is_shown(name)
    }
    return f"Measured on: {'; '.join(sorted(places))}." if places else "Not measured yet."


def shown_bars(found: Results) -> str:
    """The ratios of README.md that have been measured."""
    lines = ["| lit-llm's over | ratio |", "|---|---|"]
    for (table, name), words in SHOWN.items():
        result = found.get(table, {}).get("bars", {}).get(name)
        if result is not None and result["median"] is not None:
            lines.append(f"| {words} | {_number(result['median'])} |")
    return "\n".join(lines) if len(lines) > 2 else "Not measured yet: `make bench`."


def step_time(found: Results) -> str:
    """Floor, measured, and what fills the gap: benchmarks/tables/step_time.py."""
    result = found.get("step-time")
    if result is None or not result["rows"]:
        return "Not measured yet: `make bench TABLES=step-time`."
    rows = result["rows"]
    parts = list(dict.fromkeys(part for row in rows for part in row["parts"]))
    parts.sort(key=lambda part: -max(row["parts"].get(part, 0) for row in rows))
    lines = ["| share of a step | " + " | ".join(row["name"] for row in rows) + " |"]
    lines.append("|---|" + "---|" * len(rows))
    whole = {
        "floor: the step's matrix products and attention at the measured peak": "floor_share",
        "the same in the profile": "products_share",
    }
    for words, key in whole.items():
        lines.append(f"| {words} | " + " | ".join(f"{row[key]:.0%}" for row in rows) + " |")
    for part in parts:
        shares = (row["parts"].get(part, 0) for row in rows)
        lines.append(f"| {part} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Results], str]] = {
    "cpu": cpu_bars,
    "gpu": gpu_bars,
    "shown": shown_bars,
    "step time": step_time,
}

if __name__ == "__main__":
    main()
