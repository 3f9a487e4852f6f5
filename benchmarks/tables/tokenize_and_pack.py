"""MB of text per second from plain files to token shards, beside litgpt and `datasets.map`.

The text is the source code of Python's standard library, a document a file; the tokenizer, a
byte-level BPE of 8192 ids that is trained before, is the same for all: its tokenizer.json. Two
processes each. The seconds are those of the whole process, from an empty cache; ours finds
duplicates, cleans, splits and verifies, which the others do not do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.process_tree import Cost, cost_of
from benchmarks.result import Result
from benchmarks.rounds import PEERS, ROUNDS, NotRun, ratios, take_turns
from benchmarks.texts import write_texts, write_tokenizer

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
PROCESSES = 2
MOST_BYTES = 200_000 if DRY else 12_000_000


def main() -> None:
    columns = ("name", "mb_per_second", "seconds", "peak_mb", "ratio")
    result = Result("tokenize-and-pack", columns, dry_run=DRY)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_texts(folder / "texts", MOST_BYTES)
        write_tokenizer(folder / "tokenizer", folder / "texts")
        result.settings(text_bytes=size, processes=PROCESSES)
        peaks: dict[str, list[int]] = {}
        turns = {}
        for name, command in commands(folder).items():
            turns[name] = timed(command, folder / "out", peaks.setdefault(name, []))
        turns["lit-llm"]()  # once that does not count: the text is read from memory by all
        seconds = take_turns(turns, 2 if DRY else ROUNDS, result.not_run)
    ours = seconds.get("lit-llm")
    ratio = {name: ratios(times, ours) for name, times in seconds.items()} if ours else {}
    for name, times in seconds.items():
        middle = statistics.median(times)
        result.add(
            name=name,
            mb_per_second=size / 1e6 / middle,
            seconds=middle,
            peak_mb=max(peaks[name]) / 1e6,
            ratio=statistics.median(ratio[name]) if ratio else None,
            rounds=times,
        )
        if ratio and name != "lit-llm":
            result.bar(name, ratio[name])
    result.show()


def commands(folder: Path) -> dict[str, list[str]]:
    """What each contender runs; the last argument of each is below a folder that is removed."""
    texts, tokenizer, out = (str(folder / name) for name in ("texts", "tokenizer", "out"))
    ours = ours_for(texts, tokenizer, f"{out}/cache", PROCESSES)
    peer = ["-m", "benchmarks.peers.prepare_"]
    return {
        "lit-llm": ours,
        "litgpt": [str(PEERS), peer[0], f"{peer[1]}litgpt", texts, tokenizer, f"{out}/litgpt"],
        # `datasets` is one of lit-llm's own packages; litgpt's numpy is too old for it
        "datasets": [sys.executable, peer[0], f"{peer[1]}datasets", texts, tokenizer, out],
    }


def ours_for(texts: str, tokenizer: str, cache: str, processes: int) -> list[str]:
    """`cli.py prepare` of text files with a tokenizer.json."""
    return [
        *(sys.executable, "cli.py", "prepare", "-c", "configs/model/gpt-1m.yaml"),
        "--data=lit_llm.data.module.TextData",
        "--data.corpus=lit_llm.data.corpus.TextFiles",
        f"--data.corpus.path={texts}",
        "--data.tokenizer=lit_llm.tokenizer.HuggingFace",
        f"--data.tokenizer.path={tokenizer}/tokenizer.json",
        f"--data.prepare_workers={processes}",
        f"--data.cache_dir={cache}",
        f"--data.val_fraction={0.3 if DRY else 0.01}",
    ]


def timed(command: list[str], out: Path, peaks: list[int]) -> Callable[[], float]:
    """A turn: run the command, remove what it wrote, and give its seconds."""

    def turn() -> float:
        try:
            if not Path(command[0]).exists():
                raise NotRun(f"{command[0]} is not there: make bench installs it")
            cost: Cost = cost_of(command)
        finally:
            shutil.rmtree(out, ignore_errors=True)
        peaks.append(cost.peak_bytes)
        return cost.seconds

    return turn


if __name__ == "__main__":
    main()
