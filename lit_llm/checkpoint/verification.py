"""Compares a checkpoint with its manifest while it is read, shared out over all processes.

    with verified(folder, ranks):
        checkpoint = ...  # may be built, but counts only when the block has ended

Small files are checked before the block begins: those that a parser of text, or a tokenizer in
C++, would take at their word. Tensors are hashed beside the block, which costs about 0.7 s per
GB and thread; where the verdict is that a file is damaged, it replaces whatever the block raised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, time

from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.manifest import MANIFEST, damage, listed, raise_damaged, wrong_sizes
from lit_llm.checkpoint.ranks import OneRank, Ranks, on_first, together

SMALL = 16 << 20  # bytes that are hashed in 20 ms: not worth a thread
NOTICEABLE = 0.2  # seconds of checking that a command which only reads weights mentions
_SETTLED_SECONDS = 2.0  # clocks of file systems tick as slowly; a younger file may change unseen


@contextmanager
def verified(folder: Path, ranks: Ranks | None = None, *, said_from: float = 0.0) -> Iterator[None]:
    """Check a checkpoint while the block reads it; no process leaves the block before all know.

    Args:
        folder: the checkpoint
        ranks: the processes, all of which call this; each checks some of the files. None: one.
        said_from: seconds of checking from which its cost is printed, to stderr

    Raises:
        CheckpointError: it is damaged, or of a later format; the same on every process.
    """
    ranks = ranks or OneRank()
    if ranks.size == 1 and _was_seen_whole(folder):
        yield
        return
    files = on_first(ranks, lambda: listed(folder))
    mine = _share(files, ranks)
    small = {name: file for name, file in mine.items() if file["bytes"] < SMALL}
    large = {name: file for name, file in mine.items() if name not in small}
    seconds = [0.0, 0.0]

    def check(part: Entries, number: int) -> dict[str, str]:
        start = perf_counter()
        wrong = damage(folder, part)
        seconds[number] = perf_counter() - start
        return wrong

    _judge(folder, ranks, lambda: check(small, 0))
    with ThreadPoolExecutor(1) as beside:
        pending = beside.submit(check, large, 1)
        try:
            yield
        except Exception:
            _judge(folder, ranks, pending.result)
            raise
        _judge(folder, ranks, pending.result)
    if ranks.rank == 0 and sum(seconds) >= said_from:
        total = sum(file["bytes"] for file in files.values())
        print(f"{folder}: {cost(total, sum(seconds))}", file=sys.stderr)


def see_whole(folder: Path) -> None:
    """As `manifest.verify`; this process need not check the folder again until it has read it.

    Raises:
        CheckpointError: it is damaged, or of a later format.
    """
    files = listed(folder)
    state = _state(folder, files)
    if _SEEN.get(folder.resolve()) == state:
        return
    if wrong := damage(folder, files):
        raise_damaged(folder, wrong)
    _SEEN[folder.resolve()] = state


def see_small(folder: Path) -> None:
    """Check all sizes, and the content of small files: descriptions that are read first.

    Raises:
        CheckpointError: one is damaged, or the checkpoint is of a later format.
    """
    files = listed(folder)
    small = {name: file for name, file in files.items() if file["bytes"] < SMALL}
    if wrong := {**wrong_sizes(folder, files), **damage(folder, small)}:
        raise_damaged(folder, wrong)


def cost(size: int, seconds: float) -> str:
    """What a check has cost, in words."""
    for unit, words in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"verified {size / unit:.1f} {words} in {seconds:.1f} s"
    return f"verified {size} bytes in {seconds:.1f} s"


def _share(files: Entries, ranks: Ranks) -> Entries:
    """This process's part of the files: the largest first, each to whom has least."""
    load, mine = [0] * ranks.size, {}
    for name in sorted(files, key=lambda name: -files[name]["bytes"]):
        reader = load.index(min(load))
        load[reader] += files[name]["bytes"]
        if reader == ranks.rank:
            mine[name] = files[name]
    return mine


def _judge(folder: Path, ranks: Ranks, find: Callable[[], dict[str, str]]) -> None:
    """Raise on every process what any of them has found."""
    parts = together(ranks, find)
    if wrong := {name: reason for part in parts for name, reason in part.items()}:
        raise_damaged(folder, dict(sorted(wrong.items())))


# A run that looks for its newest valid checkpoint reads it at once, and `validate` looks twice: to
# check it again within seconds would double the cost. What was seen counts until it has been read
# once, and only while no file has changed.
_SEEN: dict[Path, object] = {}


def _was_seen_whole(folder: Path) -> bool:
    state = _SEEN.pop(folder.resolve(), None)
    if state is None:
        return False
    try:
        return state == _state(folder, listed(folder))
    except (ValueError, OSError):
        return False


def _state(folder: Path, files: Entries) -> object:
    """What changes when a file does; equal to nothing where a change may go unseen."""
    stats = [(folder / name).stat() for name in [*files, MANIFEST] if (folder / name).exists()]
    if not stats or max(stat.st_ctime for stat in stats) > time() - _SETTLED_SECONDS:
        return float("nan")
    return [(stat.st_ino, stat.st_size, stat.st_ctime_ns, stat.st_mtime_ns) for stat in stats]
