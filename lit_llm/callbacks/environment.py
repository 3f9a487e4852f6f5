"""On what a run stands: the machine, the versions, the code, the data, the line that was typed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lit_llm.planning.devices import machine_memory
from lit_llm.planning.peak_flops import device_name

PACKAGES = ("lit-llm", "torch", "lightning", "numpy", "sentencepiece", "safetensors")


def environment(trainer: L.Trainer, command_line: Sequence[str] = ()) -> dict[str, Any]:
    """Everything beside the configuration that another one would need to make the run again."""
    return {
        "command_line": list(command_line),
        "data": trainer.datamodule.fingerprint,  # type: ignore[attr-defined]
        **{name: _version(name) for name in PACKAGES},
        "code": code(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": hardware(),
        "device": device_name(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "nodes": trainer.num_nodes,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
    }


def hardware() -> dict[str, Any]:
    """Processors and memory of this machine, and its GPUs."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpus": gpus,
        **({"cuda": torch.version.cuda} if gpus else {}),
    }


def code(folder: Path = Path(__file__).parent) -> dict[str, Any]:
    """The git commit that the code is of, and the files that differ from it.

    Returns:
        "commit" is None where the code lies in no repository, as when it was installed.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None}
    changed = _git(folder, "status", "--porcelain") or ""
    return {"commit": commit, "changed": [line[3:] for line in changed.splitlines()][:100]}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):  # there is no git, or it is asked over a network
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "runs from its folder, not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    memory = machine_memory()
    return None if memory is None else round(memory / 1e9, 1)
