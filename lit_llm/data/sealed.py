"""Whether the files of a folder still are what was written: a manifest of their SHA-256.

manifest.json is {path inside the folder: SHA-256}. Token files are not in it: they are in the
manifest of their split (`lit_llm.data.shards`), which is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "manifest.json"
THREADED_BYTES = 2**24  # less is hashed before a thread has begun


def seal(folder: Path) -> None:
    """Write the manifest of a folder: the last file that is written into it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    splits = {path.parent for path in paths if path.name == MANIFEST}
    hashes = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in paths
        if path.parent not in splits or path.name == MANIFEST
    }
    (folder / MANIFEST).write_text(_text(hashes), encoding="utf-8", newline="\n")


def damaged(folder: Path, *, tokens: bool = True, threads: int = 1) -> Path | None:
    """The first file of a sealed folder that is missing or is not what was written.

    Args:
        folder: what `seal` was called for
        tokens: read the token files too; without them it takes milliseconds
        threads: files that are read at the same time; one thread hashes 1 to 2 GB/s
    """
    found = _hashes(folder / MANIFEST)
    if found is None:
        return folder / MANIFEST
    files = {folder / name: expected for name, expected in found.items()}
    fault = _first_fault(files, threads)
    if fault is not None or not tokens:
        return fault
    token_files: dict[Path, str] = {}
    for path in [path for path in files if path.name == MANIFEST]:
        try:
            split = json.loads(path.read_bytes())["files"]
            token_files |= {path.parent / name: file["sha256"] for name, file in split.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return path
    return _first_fault(token_files, threads)


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _hashes(path: Path) -> dict[str, str] | None:
    try:
        text = path.read_bytes().decode()
        found = json.loads(text)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and text == _text(found) else None


def _text(hashes: dict[str, str]) -> str:
    return json.dumps(hashes, indent=1) + "\n"


def _first_fault(files: dict[Path, str], threads: int) -> Path | None:
    sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
    if threads > 1 and sum(sizes) > THREADED_BYTES:
        with ThreadPoolExecutor(threads) as pool:
            return _first(files, pool.map(_is_good, files.items()))
    return _first(files, map(_is_good, files.items()))


def _first(paths: Iterable[Path], good: Iterable[bool]) -> Path | None:
    return next((path for path, is_good in zip(paths, good, strict=True) if not is_good), None)


def _is_good(file: tuple[Path, str]) -> bool:
    path, expected = file
    return path.is_file() and sha256(path) == expected
