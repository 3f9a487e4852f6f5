"""Whether the memory of `cli.py prepare` depends on how much there is to read: 10 MB and 1 GB.

The text is the source code of Python's standard library, over and over, in files of 4 MB; each copy
of a source has a first line of its own, or it would be left out as a duplicate.
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
SEPARATOR = b"=====END====="  # of the documents of a file
FILE_BYTES = 50_000 if DRY else 4_000_000
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
            command += ["--data.corpus.document=separator"]
            command += [f"--data.corpus.separator={SEPARATOR.decode()}"]
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
    """So many bytes in files of FILE_BYTES; the last is what remains."""
    folder.mkdir(parents=True)
    numbers, left = count(), most_bytes
    copies = (f"# copy {copy}\n{text}\n" for copy in count() for text in sources())
    texts = (text.encode() + SEPARATOR for text in copies)
    while left > 0:
        pieces, size = [], 0
        while size < min(FILE_BYTES, left):
            pieces.append(next(texts))
            size += len(pieces[-1])
        left -= (folder / f"{next(numbers):05d}.txt").write_bytes(b"".join(pieces))


if __name__ == "__main__":
    main()
