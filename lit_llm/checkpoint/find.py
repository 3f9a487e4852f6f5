"""Which checkpoint is meant by a path, a run's folder, or the word "last"."""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from lit_llm.checkpoint.folder import is_unfinished
from lit_llm.checkpoint.manifest import (
    ADVICE,
    MANIFEST,
    CheckpointError,
    LaterFormat,
    listed,
    raise_damaged,
    wrong_sizes,
)
from lit_llm.checkpoint.verification import NOTICEABLE, cost, see_small, see_whole

LAST = "last"
_SET_ASIDE = re.compile(r"abandoned-\d+$|replaced\.")  # of a run, and no run itself
_STEP = re.compile(r"step-(\d+)(?:-v(\d+))?$")  # -v2: Lightning's mark of a second save at a step


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's checkpoints, the oldest first, damaged ones included.

    The order is that of the step in the name ("step-00000500", "best-step-00000500"); a checkpoint
    that was named otherwise stands at the beginning.
    """
    if not run_dir.is_dir():
        return []
    folders = [path for path in run_dir.iterdir() if path.is_dir() and not is_unfinished(path)]
    return sorted(
        (path for path in folders if _STEP.search(path.name) or (path / MANIFEST).exists()),
        key=_age,
    )


class NoCheckpoint(CheckpointError):
    """There is no checkpoint where one was asked for."""


@contextmanager
def asked_by(key: str) -> Iterator[None]:
    """Name the key that asked for a checkpoint which is not there."""
    try:
        yield
    except NoCheckpoint as error:
        raise NoCheckpoint(f"{key}: {error}") from None


class Choice(NamedTuple):
    """A checkpoint to go on from, and why this one."""

    folder: Path
    why: str

    def __str__(self) -> str:
        return f"going on from {self.folder} ({self.why})"


def newest_valid(run_dir: Path, *, content: bool = True) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is complete and undamaged.

    Args:
        run_dir: where to look
        content: read all files; else only their sizes are compared

    Returns:
        Its folder (None: there is none) and, for each newer one, why it was passed over.

    Raises:
        LaterFormat: the newest is of a later lit-llm: an older one would not be what is meant.
    """
    skipped: list[str] = []
    for folder in reversed(checkpoints(run_dir)):
        try:
            if content:
                see_whole(folder)
            elif wrong := wrong_sizes(folder, listed(folder)):
                raise_damaged(folder, wrong)
        except LaterFormat:
            raise
        except (CheckpointError, OSError) as error:  # OSError: the disk cannot read it
            skipped.append(str(error).removesuffix(ADVICE))
        else:
            return folder, skipped
    return None, skipped


def resolve(which: str | Path, run_dir: Path | None = None) -> Path:
    """Find the folder of the checkpoint that is meant; warns of each damaged one passed over.

    See `choose`, which says more. This prints what the search has cost only where one waits for it.
    """
    start = perf_counter()
    found, skipped, _ = _find(which, run_dir, content=True)
    if (seconds := perf_counter() - start) >= NOTICEABLE:
        print(f"{found}: {cost(_size(found), seconds)}", file=sys.stderr)
    for reason in skipped:
        warnings.warn(f"passed over: {reason}. Going on with {found}", stacklevel=2)
    return found


def choose(which: str | Path, run_dir: Path | None = None, *, content: bool = True) -> Choice:
    """Find the folder of the checkpoint that is meant, and say why it is that one.

    Args:
        which: a checkpoint's folder, whose tensors are verified when they are read; a run's
            folder, for the newest valid checkpoint in it; or "last", for the same of `run_dir`
        run_dir: the run that "last" speaks of
        content: read all files of a run's checkpoints to know which is valid. Of several processes
            that are not connected yet the first does; the others compare sizes, and read what the
            first one has chosen.

    Raises:
        CheckpointError: there is no such checkpoint, and which ones there are; or it is damaged.
    """
    start = perf_counter()
    found, skipped, searched = _find(which, run_dir, content=content)
    if not searched:
        return Choice(found, "as asked for")
    why = "the newest valid one"
    if content:
        why += f", {cost(_size(found), perf_counter() - start)}"
    return Choice(found, "; passed over: ".join([why, *skipped]))


def _find(
    which: str | Path, run_dir: Path | None, *, content: bool
) -> tuple[Path, list[str], bool]:
    """The folder, why newer ones were passed over, and whether there was a choice at all."""
    if str(which) == LAST:
        if run_dir is None:
            raise CheckpointError('"last" of which run? Give the path of a checkpoint or of a run')
        which = run_dir
    path = Path(which)
    if path.is_file():
        raise CheckpointError(f"{path} is a file, but a checkpoint is a folder{_owner(path)}")
    if not path.is_dir():
        raise NoCheckpoint(f"no checkpoint {path}{_nearest(path)}")
    if is_unfinished(path):
        raise CheckpointError(f"{path} is what an interrupted save left: not a checkpoint")
    if (path / MANIFEST).exists():
        see_small(path)
        return path, [], False
    found, skipped = newest_valid(path, content=content)
    if found is None:
        raise NoCheckpoint(_none_in(path, skipped))
    return found, skipped, True


def _size(folder: Path) -> int:
    return sum(file["bytes"] for file in listed(folder).values())


def _age(folder: Path) -> tuple[int, int, str]:
    step = _STEP.search(folder.name)
    if step is None:
        return -1, 0, folder.name
    return int(step[1]), int(step[2] or 0), folder.name


def _owner(path: Path) -> str:
    return f": give {path.parent}" if (path.parent / MANIFEST).exists() else ""


def _none_in(path: Path, skipped: list[str]) -> str:
    if skipped:
        return f"no valid checkpoint in {path}, only {len(skipped)} damaged: {skipped[0]}"
    if _STEP.search(path.name):
        return f"{path} is no complete checkpoint: {MANIFEST} is missing{_nearest(path)}"
    return f"no checkpoint in {path}{_listed(path, runs_below(path))}"


def _nearest(path: Path) -> str:
    """What stands where `path` was looked for, and which name of it is most like."""
    root = path.parent
    while not root.is_dir():  # the first part of the path that is wrong
        root = root.parent
    there = [inner for inner in checkpoints(root) if inner != path] or runs_below(root)
    names = [str(inner.relative_to(root)) for inner in there]
    alike = difflib.get_close_matches(str(path.relative_to(root)), names, n=1)
    question = f": did you mean {root / alike[0]}?" if alike else ""
    return question + _listed(root, there)


def runs_below(root: Path) -> list[Path]:
    """Runs below a folder, such as checkpoints/quickstart/pretrain, at most two levels deep."""
    manifests = [*root.glob(f"*/*/{MANIFEST}"), *root.glob(f"*/*/*/{MANIFEST}")]
    runs = {path.parent.parent for path in manifests if not is_unfinished(path.parent)}
    return sorted(run for run in runs if not _SET_ASIDE.match(run.name))


def _listed(root: Path, folders: list[Path]) -> str:
    place = "this folder" if root == Path() else root
    if not folders:
        return f"\n{place} holds no checkpoint: give the path of another one"
    names = [str(folder.relative_to(root)) for folder in folders[-5:]]
    earlier = f"{len(folders) - 5} more, " if len(folders) > 5 else ""
    return f"\n{place} holds {earlier}{', '.join(names)}: give the path of one"
