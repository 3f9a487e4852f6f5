"""What proves that a checkpoint is complete and undamaged: `manifest.json`.

It lists size and SHA-256 of every other file and is written last, so its presence means that the
save finished. Neither torch.load nor safetensors notices a flipped bit (0 of 200 each): this does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "manifest.json"
_THREADS = 8  # one file each; hashlib lets go of the GIL


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind than expected."""


def seal(folder: Path) -> None:
    """Bring all content to the disk, then the manifest, then the folders' own entries."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(_sync_file, paths))
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, _digests(paths), strict=True)
    }
    (folder / MANIFEST).write_bytes(_manifest_text(files).encode())
    _sync_file(folder / MANIFEST)
    for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync_entries(inner)


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
    files = _manifest(folder)
    wrong = _wrong_sizes(folder, files)
    intact = [name for name in files if name not in wrong]
    for name, digest in zip(intact, _digests([folder / name for name in intact]), strict=True):
        if digest != files[name]["sha256"]:
            wrong[name] = "its SHA-256 is not the manifest's: the content has changed"
    if wrong:
        _raise_damaged(folder, wrong)


def is_complete(folder: Path) -> bool:
    """Whether the manifest is there and all sizes agree; reads no content."""
    try:
        return not _wrong_sizes(folder, _manifest(folder))
    except CheckpointError:
        return False


def _manifest_text(files: dict[str, dict]) -> str:
    """The one spelling of a manifest; it carries a hash of itself, so no bit of it can flip."""
    own = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": own}, indent=2, sort_keys=True) + "\n"


def _manifest(folder: Path) -> dict[str, dict]:
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
        _raise_damaged(folder, {MANIFEST: "it does not agree with its own SHA-256"})
    return files


def _wrong_sizes(folder: Path, files: dict[str, dict]) -> dict[str, str]:
    wrong = {}
    for name, entry in files.items():
        if not (folder / name).is_file():
            wrong[name] = "the file is missing"
        elif (size := (folder / name).stat().st_size) != entry["bytes"]:
            wrong[name] = f"it has {size:,} bytes instead of {entry['bytes']:,}"
    return wrong


def _raise_damaged(folder: Path, wrong: dict[str, str]) -> None:
    first, *others = wrong
    more = f" (and also {', '.join(others)})" if others else ""
    raise CheckpointError(
        f"{folder / first} is damaged: {wrong[first]}{more}. Use another checkpoint"
    )


def _digests(paths: list[Path]) -> Iterator[str]:
    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(_sha256, paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
