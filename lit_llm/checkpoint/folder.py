"""How a folder is written, replaced and removed so that it is always whole or absent.

A save goes to `<target>.tmp-<pid>-<random>` beside the target (never through TMPDIR: a move across
file systems is a copy, which kill -9 tore in 6 of 30 tries), every file is fsynced, the manifest
comes last, and a rename puts the folder in place.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lit_llm.checkpoint.manifest import MANIFEST, CheckpointError, FileEntry, seal, sync_entries

_UNFINISHED = re.compile(r"(?P<target>.+)\.(?P<kind>tmp|old)-(?P<pid>\d+)-[0-9a-f]{8}")


def write_folder(
    target: Path, write: Callable[[Path], None], *, replace: bool = False, bytes_needed: int = 0
) -> None:
    """Write a folder that appears under its name only when it is complete and on the disk.

    Args:
        target: where the folder shall be
        write: fills the empty folder that it is given
        replace: a checkpoint that stands at `target` may be replaced
        bytes_needed: what `write` is going to write at least; asked of the disk before it starts

    Raises:
        CheckpointError: something stands at `target` that must not be replaced.
        OSError: the disk is full (ENOSPC). Nothing of this save is left then, as after any other
            exception; what stood at `target` is untouched.
    """
    temporary = begin(target, replace=replace, bytes_needed=bytes_needed)
    try:
        with explained_disk_full(target, bytes_needed):
            write(temporary)
            finish(temporary, target)
    except BaseException:
        abandon(temporary)
        raise


def begin(target: Path, *, replace: bool = False, bytes_needed: int = 0) -> Path:
    """Make the folder that is to take the name `target`, for writers that are several processes.

    One of them begins; then all write; then the one calls `finish`, or `abandon` if any failed.

    Raises:
        CheckpointError, OSError: as `write_folder`.
    """
    _refuse_occupied(target, replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(target.parent).free) < bytes_needed:
        raise OSError(errno.ENOSPC, _disk_full(target, bytes_needed, free))
    temporary = _beside(target, "tmp")
    with explained_disk_full(target, bytes_needed):
        temporary.mkdir()
    return temporary


def finish(temporary: Path, target: Path, known: Mapping[str, FileEntry] | None = None) -> None:
    """Seal what `begin` made and give it its name; `known` is what `seal` need not read again."""
    seal(temporary, known)
    _put_in_place(temporary, target)


def abandon(temporary: Path) -> None:
    """Remove what `begin` made, as far as it is still there."""
    shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def explained_disk_full(target: Path, bytes_needed: int) -> Iterator[None]:
    """Turn any error that comes from a full disk into one OSError that names the path."""
    try:
        yield
    except BaseException as error:
        free = shutil.disk_usage(target.parent).free  # before this save's space is given back
        if _tells_disk_full(error, free):
            raise OSError(errno.ENOSPC, _disk_full(target, bytes_needed, free)) from error
        raise


def remove_folder(folder: Path) -> None:
    """Remove a checkpoint; killed half-way, it leaves nothing that looks like one.

    Raises:
        CheckpointError: the folder is no checkpoint.
    """
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} has no {MANIFEST}: not a checkpoint, so it is not removed")
    doomed = _beside(folder, "tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def clean_leftovers(run_dir: Path) -> list[Path]:
    """Remove what killed processes of this host left behind; give back the paths.

    To be called by one process before its first save: leftovers under its own process id are an
    earlier process's (containers give the same id again). A save that was killed between the two
    renames of a replacement is undone: the old checkpoint gets its name back.
    """
    cleaned = []
    for path in sorted(run_dir.glob("*.old-*")) + sorted(run_dir.glob("*.tmp-*")):
        name = _UNFINISHED.fullmatch(path.name)
        if name is None or _is_another_living_process(int(name["pid"])):
            continue
        target = path.with_name(name["target"])
        if name["kind"] == "old" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path)
        cleaned.append(path)
    return cleaned


def is_unfinished(folder: Path) -> bool:
    """Whether the name is one of those under which a save or a removal is in progress."""
    return _UNFINISHED.fullmatch(folder.name) is not None


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f"{target.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


def _refuse_occupied(target: Path, replace: bool) -> None:
    if not target.exists():
        return
    if not replace:
        raise CheckpointError(f"{target} exists already: choose another name, or remove it first")
    if not (target / MANIFEST).is_file():
        raise CheckpointError(
            f"{target} is no checkpoint (it has no {MANIFEST}), so a save does not replace it: "
            f"choose another name, such as {target / 'step-00000001'}"
        )


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        sync_entries(target.parent)
        return
    old = _beside(target, "old")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    sync_entries(target.parent)
    shutil.rmtree(old)


def _is_another_living_process(pid: int) -> bool:
    if pid == os.getpid():
        return False
    if os.name == "nt":  # os.kill would end the process; better to keep a leftover
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _tells_disk_full(error: BaseException, free: int) -> bool:
    """Whether a failed write comes from a full disk; torch.save and safetensors hide errno."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, Exception) and (free < 1 << 20 or "No space left" in str(error))


def _disk_full(target: Path, bytes_needed: int, free: int) -> str:
    needs = f"needs {bytes_needed:,} bytes, {free:,} are free" if bytes_needed else f"{free:,} free"
    return f"disk full while saving {target}: {needs}. Earlier checkpoints are untouched"
