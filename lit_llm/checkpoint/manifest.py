"""What proves that a checkpoint is complete and undamaged: `manifest.json`.

It lists size and SHA-256 of every other file and is written last, so its presence means that the
save finished. Neither torch.load nor safetensors notices a flipped bit (0 of 200 each): this does.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from lit_llm.checkpoint.hashed import Entries, FileEntry, write_bytes

FORMAT = 1  # raised when an older reader would misread a manifest, or what it lists
MANIFEST = "manifest.json"
ADVICE = ". Use another checkpoint"
_THREADS = 8  # one file each; hashlib lets go of the GIL


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged or of another kind than expected."""


class LaterFormat(CheckpointError):
    """A checkpoint that a later lit-llm wrote: not damaged, and not to be passed over."""


def seal(folder: Path, known: Mapping[str, FileEntry] | None = None) -> None:
    """Bring all content to the disk, then the manifest, then the folders' own entries.

    Args:
        folder: what to seal
        known: entries of files that are on the disk already, hashed while they were written.
            Those of other processes need not show up yet in this one's view of a network file
            system. All others, such as what a tokenizer's class writes, are read once more.
    """
    known = known or {}
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    written = {MANIFEST, *known}
    names = sorted(name for name, path in there.items() if path.is_file() and name not in written)
    with ThreadPoolExecutor(_THREADS) as threads:
        entries = threads.map(entry, [there[name] for name in names])
    files = {**known, **dict(zip(names, entries, strict=True))}
    content = {"files": files, "format": FORMAT}
    write_bytes(folder / MANIFEST, _manifest_text(content).encode())
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
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
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
    wrong = wrong_sizes(folder, files)
    intact = [name for name in files if name not in wrong]
    with ThreadPoolExecutor(_THREADS) as threads:
        reasons = threads.map(lambda name: _wrong_content(folder / name, files[name]), intact)
        wrong.update((name, why) for name, why in zip(intact, reasons, strict=True) if why)
    return wrong


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that agrees with its manifest and is not what it should be.

    No save of ours writes one; whoever did may have meant harm. Nothing of it was executed.
    """
    reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
    return CheckpointError(f"{path} is no file of a checkpoint ({reason}): do not use it")


def raise_damaged(folder: Path, wrong: Mapping[str, str]) -> NoReturn:
    """Raise the CheckpointError that names damaged files."""
    first, *others = wrong
    more = f" (and also {', '.join(others)})" if others else ""
    raise CheckpointError(f"{folder / first} is damaged: {wrong[first]}{more}{ADVICE}")


def is_complete(folder: Path) -> bool:
    """Whether the manifest is there and all sizes agree; reads no content."""
    try:
        return not wrong_sizes(folder, listed(folder))
    except CheckpointError:
        return False


def listed(folder: Path) -> Entries:
    """Read the manifest: the entry of each file, by its path in the folder.

    Raises:
        CheckpointError: it is missing, damaged or of a later format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is no complete checkpoint: {MANIFEST} is missing")
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        del content["sha256"]
        files, format = content["files"], content.get("format", 1)
        intact = text == _manifest_text(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise_damaged(folder, {MANIFEST: "it does not agree with its own SHA-256"})
    if format > FORMAT:
        raise LaterFormat(
            f"{path} has format {format}, this lit-llm reads up to {FORMAT}: "
            "install a later lit-llm"
        )
    return files


def _manifest_text(content: Mapping[str, Any]) -> str:
    """The one spelling of a manifest; it carries a hash of itself, so no bit of it can flip.

    Formats to come keep this rule, else a later one could not be told from a damaged one.
    """
    # The first manifests named no format and hashed the files alone.
    hashed = content if "format" in content else content["files"]
    own = hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": own}, indent=2, sort_keys=True) + "\n"


def wrong_sizes(folder: Path, files: Mapping[str, FileEntry]) -> dict[str, str]:
    """As `damage`, but reads no content: missing files, and those of another size."""
    wrong = {}
    for name, entry in files.items():
        if not (folder / name).is_file():
            wrong[name] = "the file is missing"
        elif (size := (folder / name).stat().st_size) != entry["bytes"]:
            wrong[name] = f"it has {size:,} bytes instead of {entry['bytes']:,}"
    return wrong


def _wrong_content(path: Path, entry: FileEntry) -> str | None:
    try:
        same = _sha256(path) == entry["sha256"]
    except OSError as error:  # the disk cannot read it
        return f"it cannot be read: {error.strerror}"
    return None if same else "its SHA-256 is not the manifest's: the content has changed"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
