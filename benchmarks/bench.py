"""Run the tables and count the bars; `make bench` does.

    python -m benchmarks.bench                        # all that take minutes
    python -m benchmarks.bench train-throughput load  # some of them
    python -m benchmarks.bench --long                 # those that take hours

Each table is a module of benchmarks/tables/ with a process of its own, prints itself and writes a
file of benchmarks/results/, from which docs/speed.md and README.md get their figures. Exit code 0:
every bar is met.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from time import perf_counter

from benchmarks import speed_page
from benchmarks.result import ROOT, bar_words, console, read_bars, results_folder

TABLES = (
    "start-up",
    "load",
    "tokenize-and-pack",
    "memory",
    "train-throughput",
    "step-time",
    "trainer-overhead",  # in percent of a step of train-throughput
    "prefill",
    "decode",
    "time-to-loss",
)
LONG_TABLES = ("time-to-loss-long", "prepare-long", "soak")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES + LONG_TABLES))
    parser.add_argument("--long", action="store_true", help="run the tables that take hours")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - {*TABLES, *LONG_TABLES}:
        parser.error(f"no table {unknown.pop()}: there are {', '.join(TABLES + LONG_TABLES)}")
    tables = arguments.tables or (LONG_TABLES if arguments.long else TABLES)
    before = perf_counter()
    for table in tables:
        _run(table)
    console.print(f"{(perf_counter() - before) / 60:.0f} minutes", highlight=False)
    if "OUT" not in os.environ:
        speed_page.main()
    all_met = _count(tables)
    sys.exit(0 if all_met else 1)


def _run(table: str) -> None:
    before = perf_counter()
    (results_folder() / f"{table}.json").unlink(missing_ok=True)
    module = "benchmarks.tables." + table.replace("-", "_")
    environment = {**os.environ, "BENCH_COMMAND": f"python -m benchmarks.bench {table}"}
    code = subprocess.run([sys.executable, "-m", module], cwd=ROOT, env=environment).returncode
    if code:
        console.print(f"{table} ended with exit code {code}", highlight=False)
    console.print(f"{perf_counter() - before:.0f} seconds\n", highlight=False)


def _count(tables: tuple[str, ...] | list[str]) -> bool:
    """Print every bar of the tables, and how many are met; whether all are."""
    met = total = 0
    for table in tables:
        path = results_folder() / f"{table}.json"
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found = {} if result.get("dry_run", True) else result["bars"]
        for name in read_bars().get(table, {}):
            words = bar_words(found[name]) if name in found else "not run: NOT MET"
            console.print(f"{table}, {name}: {words}", highlight=False, markup=False)
            total += 1
            met += name in found and found[name]["met"]
    console.print(f"{met} of {total} bars met", highlight=False)
    return met == total


if __name__ == "__main__":
    main()
