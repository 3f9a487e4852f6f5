"""What proves that a checkpoint is complete and undamaged: `manifest.json`.

It lists size and SHA-256 of every other file and is written last, so its presence means that the
save finished. Neither torch.load nor safetensors notices a flipped bit (0 of 200 each): this does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, TypedDict

MANIFEST = "manifest.json"
_THREADS = 8  # one file each; hashlib lets go of the GIL


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind than expected."""


class FileEntry(TypedDict):
    """What a manifest says about a file."""

    bytes: int
    sha256: str


def seal(folder: Path, known: Mapping[str, FileEntry] | None = None) -> None:
    """Bring all content to the disk, then the manifest, then the folders' own entries.

    Args:
        folder: what to seal
        known: entries of files that other processes have written, by `entry`. They are not read
            again, and need not show up yet in this process's view of a network file system.
    """
    known = known or {}
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    names = sorted(name for name, path in there.items() if path.is_file() and name not in known)
    with ThreadPoolExecutor(_THREADS) as threads:
        entries = threads.map(entry, [there[name] for name in names])
    files = {**known, **dict(zip(names, entries, strict=True))}
    (folder / MANIFEST).write_bytes(_manifest_text(files).encode())
    _sync_file(folder / MANIFEST)
    for inner in [*(path for path in there.values() if path.is_dir()), folder]:
        sync_entries(inner)


def entry(path: Path) -> FileEntry:
    """Bring a file to the disk and describe it."""
    _sync_file(path)
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def sync_entries(folder: Path) -> None:
    """Bring a folder's own list of names to the disk."""
    if os.name == "nt":  # Windows opens no folders and needs none of this
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path) -> None:
    """Compare every file with the manifest: size and SHA-256.

    Files that the manifest does not list are none of its business (a file manager leaves some).

    Raises:
        CheckpointError: names the damaged files, and what is wrong with each.
    """
    if wrong := damage(folder, listed(folder)):
        raise_damaged(folder, wrong)


def damage(folder: Path, files: Mapping[str, FileEntry]) -> dict[str, str]:
    """Compare some files of a manifest with it: what is wrong with each that does not agree."""
    wrong = _wrong_sizes(folder, files)
    intact = [name for name in files if name not in wrong]
    for name, digest in zip(intact, _digests([folder / name for name in intact]), strict=True):
        if digest != files[name]["sha256"]:
            wrong[name] = "its SHA-256 is not the manifest's: the content has changed"
    return wrong


def raise_damaged(folder: Path, wrong: Mapping[str, str]) -> NoReturn:
    """Raise the CheckpointError that names damaged files."""
    first, *others = wrong
    more = f" (and also {', '.join(others)})" if others else ""
    raise CheckpointError(
        f"{folder / first} is damaged: {wrong[first]}{more}. Use another checkpoint"
    )


def is_complete(folder: Path) -> bool:
    """Whether the manifest is there and all sizes agree; reads no content."""
    try:
        return not _wrong_sizes(folder, listed(folder))
    except CheckpointError:
        return False


def listed(folder: Path) -> dict[str, FileEntry]:
    """Read the manifest: the entry of each file, by its path in the folder.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is no complete checkpoint: {MANIFEST} is missing")
    try:
        text = path.read_bytes().decode()
        files = json.loads(text)["files"]
        intact = text == _manifest_text(files)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise_damaged(folder, {MANIFEST: "it does not agree with its own SHA-256"})
    return files


def _manifest_text(files: Mapping[str, FileEntry]) -> str:
    """The one spelling of a manifest; it carries a hash of itself, so no bit of it can flip."""
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": own}, indent=2, sort_keys=True) + "\n"


def _wrong_sizes(folder: Path, files: Mapping[str, FileEntry]) -> dict[str, str]:
    wrong = {}
    for name, entry in files.items():
        if not (folder / name).is_file():
            wrong[name] = "the file is missing"
        elif (size := (folder / name).stat().st_size) != entry["bytes"]:
            wrong[name] = f"it has {size:,} bytes instead of {entry['bytes']:,}"
    return wrong


def _digests(paths: list[Path]) -> Iterator[str]:
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(_sha256, paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
