"""Whether the memory of `cli.py prepare` depends on how much there is to read: 10 MB and 1 GB.

The text is the source code of Python's standard library, over and over; each copy of a file has a
first line of its own, or it would be left out as a duplicate.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import count
from pathlib import Path

from benchmarks.process_tree import cost_of
from benchmarks.result import Result
from benchmarks.rounds import NotRun
from benchmarks.tables.tokenize_and_pack import PROCESSES, ours_for
from benchmarks.texts import sources, write_texts, write_tokenizer

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
SIZES = (200_000, 400_000) if DRY else (10_000_000, 1_000_000_000)


def main() -> None:
    columns = ("name", "seconds", "mb_per_second", "peak_mb")
    result = Result("prepare-long", columns, dry_run=DRY)
    peaks = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_texts(folder / "sample", SIZES[0])
        write_tokenizer(folder / "tokenizer", folder / "sample")
        for size in SIZES:
            write_copies(folder / "texts", size)
            command = ours_for(
                str(folder / "texts"), str(folder / "tokenizer"), str(folder / "cache"), PROCESSES
            )
            try:
                cost = cost_of(command)
            except NotRun as reason:
                result.not_run(f"{size / 1e6:.0f} MB", str(reason))
                continue
            finally:
                shutil.rmtree(folder / "texts")
                shutil.rmtree(folder / "cache", ignore_errors=True)
            peaks.append(cost.peak_bytes)
            result.add(
                name=f"{size / 1e6:.0f} MB",
                seconds=cost.seconds,
                mb_per_second=size / 1e6 / cost.seconds,
                peak_mb=cost.peak_bytes / 1e6,
            )
    if len(peaks) == len(SIZES):
        result.bar("memory", [peaks[1] / peaks[0]])
    result.show()


def write_copies(folder: Path, most_bytes: int) -> None:
    """Files of so many bytes in all, in subfolders of one copy each."""
    size = 0
    for copy in count():
        below = folder / f"{copy:03d}"
        below.mkdir(parents=True)
        for number, text in enumerate(sources()):
            data = f"# copy {copy}\n{text}".encode()
            size += (below / f"{number:05d}.txt").write_bytes(data)
            if size >= most_bytes:
                return


if __name__ == "__main__":
    main()
