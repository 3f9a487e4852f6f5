"""Folders that are either complete or not there."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary folder beside `target` that takes its name when the block ends well.

    Every file is on the disk before the name changes, so neither a killed process nor a power
    cut leaves something at `target` that is not complete. When another process has made
    `target` in the meantime its folder stays: both hold the same, or they would have different
    names.

    Args:
        target: must not exist
        durable: false does not wait for the disk, which takes 5 ms a file: for a folder inside of
            another new one, and for what is compared with its hashes before it is used
    """
    temporary = _beside(target)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary] if durable else ():
            sync(path)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        if durable:
            sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders; its renames are journalled
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(folder: Path) -> None:
    """Delete a folder; a killed process leaves no half of it under its name."""
    temporary = _beside(folder)
    folder.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half done. Call it only where no other process writes."""
    for path in folder.glob("*/*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
