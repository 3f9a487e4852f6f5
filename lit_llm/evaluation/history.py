"""evaluation.json: what every evaluation of a run has found, the latest at the end."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

FILE = "evaluation.json"
OF_A_RUN = ("metrics.csv", "config.yaml")
PACKAGES = ("lit-llm", "torch", "lm-eval", "transformers", "datasets")


def history_file(checkpoint: Path) -> Path:
    """Where a checkpoint's evaluations are noted.

    In the folder of its run. A checkpoint that stands alone has a file beside it, named after it:
    in it there would be a file that its manifest does not know.
    """
    checkpoint = checkpoint.resolve()
    if any((checkpoint.parent / name).exists() for name in OF_A_RUN):
        return checkpoint.parent / FILE
    return checkpoint.with_name(f"{checkpoint.name}.{FILE}")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The entries so far; none if there is no file.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): move it away, or give --output"
        ) from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is no list of evaluations: move it away, or give --output")
    return entries


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add an entry; whoever reads the file meanwhile sees it whole, with it or without it."""
    text = json.dumps([*read_history(path), entry], indent=2, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Of what has computed the numbers; packages that are not there are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
