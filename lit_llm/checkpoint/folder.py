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
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lit_llm.checkpoint.hashed import Entries, FileEntry
from lit_llm.checkpoint.manifest import MANIFEST, CheckpointError, seal, sync_entries

_UNFINISHED = re.compile(r"(?P<target>.+)\.(?P<kind>tmp|old)-(?P<pid>\d+)-[0-9a-f]{8}")


class SaveFailed(OSError):
    """A checkpoint could not be written; says which, why, and that the earlier ones are whole.

    `errno` is ENOSPC if the disk is full, EFBIG if a file may not be that large.
    """

    def __str__(self) -> str:
        return str(self.strerror)


def write_folder(
    target: Path,
    write: Callable[[Path], Entries | None],
    *,
    replace: bool = False,
    bytes_needed: int = 0,
) -> None:
    """Write a folder that appears under its name only when it is complete and on the disk.

    Args:
        target: where the folder shall be
        write: fills the empty folder that it is given, and says what it has brought to the disk
            and hashed already; all else is read again
        replace: a checkpoint that stands at `target` may be replaced
        bytes_needed: what `write` is going to write at least; asked of the disk before it starts

    Raises:
        CheckpointError: something stands at `target` that must not be replaced.
        SaveFailed: the disk is full, or refuses something else. Nothing of this save is left then,
            as after any other exception; what stood at `target` is untouched.
    """
    temporary = begin(target, replace=replace, bytes_needed=bytes_needed)
    try:
        with explained(target, bytes_needed):
            finish(temporary, target, write(temporary))
    except BaseException:
        abandon(temporary)
        raise


def begin(target: Path, *, replace: bool = False, bytes_needed: int = 0) -> Path:
    """Make the folder that is to take the name `target`, for writers that are several processes.

    One of them begins; then all write; then the one calls `finish`, or `abandon` if any failed.

    Raises:
        CheckpointError, SaveFailed: as `write_folder`.
    """
    _refuse_occupied(target, replace)
    temporary = temporary_beside(target)
    with explained(target, bytes_needed):
        target.parent.mkdir(parents=True, exist_ok=True)
        if free_bytes(target.parent) < bytes_needed:
            raise OSError(errno.ENOSPC, "asked before the first byte is written")
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
def explained(target: Path, bytes_needed: int) -> Iterator[None]:
    """Turn what a disk refuses into a SaveFailed that names the path, and the bytes if it is full.

    A limit on the size of a file (`ulimit -f`) is told apart: more space would not help.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            raise SaveFailed(errno.EFBIG, _file_too_large(target, bytes_needed)) from error
        try:
            free = free_bytes(target.parent)  # before this save's space is given back
        except OSError:
            free = None
        if _tells_disk_full(error, free):
            raise SaveFailed(errno.ENOSPC, _disk_full(target, bytes_needed, free or 0)) from error
        if isinstance(error, OSError) and error.errno is not None:
            what = f"saving {target} failed: {error}. Earlier checkpoints are untouched"
            raise SaveFailed(error.errno, what) from error
        raise


def remove_folder(folder: Path) -> None:
    """Remove a checkpoint; killed half-way, it leaves nothing that looks like one.

    Raises:
        CheckpointError: the folder is no checkpoint.
        OSError: it cannot be removed. It is then whole, or has lost its name and is removed with
            other leftovers when a run starts here.
    """
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} has no {MANIFEST}: not a checkpoint, so it is not removed")
    doomed = temporary_beside(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def clean_leftovers(run_dir: Path) -> list[Path]:
    """Remove what killed processes of this host left behind; give back the paths.

    To be called by one process before its first save: leftovers under its own process id are an
    earlier process's (containers give the same id again). A save that was killed between the two
    renames of a replacement is undone: the old checkpoint gets its name back. Warns of what
    cannot be removed: it costs space, and nothing takes it for a checkpoint.
    """
    cleaned = []
    for path in sorted(run_dir.glob("*.old-*")) + sorted(run_dir.glob("*.tmp-*")):
        name = _UNFINISHED.fullmatch(path.name)
        if name is None or _is_another_living_process(int(name["pid"])):
            continue
        target = path.with_name(name["target"])
        if name["kind"] == "old" and not target.exists():
            path.rename(target)
        elif not _discard(path):
            continue
        cleaned.append(path)
    return cleaned


def free_bytes(folder: Path) -> int:
    """Bytes that the folder's file system still takes; without end where it does not say."""
    usage = shutil.disk_usage(folder)
    return usage.free if usage.total or usage.free else sys.maxsize  # some over a network: 0 of 0


def is_unfinished(folder: Path) -> bool:
    """Whether the name is one of those under which a save or a removal is in progress."""
    return _UNFINISHED.fullmatch(folder.name) is not None


def temporary_beside(target: Path) -> Path:
    """Make up a name that `clean_leftovers` removes if a killed process leaves it."""
    return _beside(target, "tmp")


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
    _discard(old)


def _discard(folder: Path) -> bool:
    """Remove what nobody needs; a run does not end because that fails."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        warnings.warn(f"{folder} cannot be removed and takes up space: {error}", stacklevel=3)
        return False
    return True


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


def _tells_disk_full(error: BaseException, free: int | None) -> bool:
    """Whether a failed write comes from a full disk; writers in C++ hide errno."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    full = free is not None and free < 1 << 20
    return isinstance(error, Exception) and (full or "No space left" in str(error))


def _disk_full(target: Path, bytes_needed: int, free: int) -> str:
    needs = f"needs {bytes_needed:,} bytes, {free:,} are free" if bytes_needed else f"{free:,} free"
    return f"disk full while saving {target}: {needs}. Earlier checkpoints are untouched"


def _file_too_large(target: Path, bytes_needed: int) -> str:
    needs = f"{bytes_needed:,} bytes in all" if bytes_needed else "unknown bytes"
    return (
        f"a file of {target} is larger than this process may write, {file_size_limit():,} bytes "
        f"(ulimit -f): the checkpoint has {needs}. Earlier checkpoints are untouched"
    )


def file_size_limit() -> float:
    """The largest file that this process may write, in bytes; inf if nothing limits it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit
