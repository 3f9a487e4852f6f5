"""C++ that is compiled where it runs, for exactly this processor, once.

PyTorch's own operators cover nearly all that a model computes. For the few that do not, a file
`NAME.cpp` beside the Python that calls it becomes a library, and the caller has another way to
compute the same where no compiler makes one of it.
"""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import os
import platform
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

FLAGS = (
    "-std=c++17 -O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC".split()
)
if platform.machine() in ("x86_64", "AMD64"):
    # GCC would compute 8 numbers at once where 16 fit, for the sake of processors of 2017.
    FLAGS.append("-mprefer-vector-width=512")
HEADERS = Path(__file__).parent  # which any of the files may include
# Lines of /proc/cpuinfo about a processor: x86's, ARM's, and those of others.
DESCRIBES = ("model name", "flags", "CPU ", "Features", "cpu", "isa", "uarch")

_operators = torch.library.Library("lit_llm", "DEF")


def operator(schema: str, on_cpu: Callable[..., Any], on_meta: Callable[..., Any]) -> Any:
    """Make a function an operator: torch.compile takes it as it is, plans and profiles see it.

    Not by `torch.library.custom_op`, whose first call imports PyTorch's compiler: 0.9 s.

    Args:
        schema: its name, the types of its arguments and of its results
        on_cpu: computes it
        on_meta: gives empty tensors of the sizes of its results
    """
    name = schema[: schema.index("(")]
    _operators.define(schema)
    _operators.impl(name, on_cpu, "CPU")
    _operators.impl(name, on_meta, "Meta")
    return getattr(torch.ops.lit_llm, name)


@cache
def compiled_library(source: Path) -> ctypes.CDLL | None:
    """A C++ file, compiled; None where no compiler makes a library of it.

    Its file lies beside TorchInductor's, and is named after all that it depends on.
    """
    compiler = os.environ.get("CXX", "g++")
    try:
        headers = sorted(HEADERS.glob("*.h"))
        texts = [path.read_text(encoding="utf-8") for path in (source, *headers)]
        described = "\n".join([*texts, compiler, *FLAGS, _processor()])
        digest = hashlib.sha256(described.encode()).hexdigest()[:16]
        name = f"lit_llm_{source.stem}_{digest}.so"
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_private(folder):
            with tempfile.TemporaryDirectory() as own:
                return _compiled(compiler, source, Path(own, name))
        if (folder / name).exists():
            with suppress(OSError):  # damaged, or made for libraries that are gone
                return ctypes.CDLL(str(folder / name))
        return _compiled(compiler, source, folder / name)
    except (OSError, subprocess.CalledProcessError):
        return None


def tiles_of(library: ctypes.CDLL | None) -> bool | None:
    """Whether a library may compute with an Intel CPU's tiles (AMX); None: it has no use for them.

    It has to be asked before the library computes anything: the system lets a process have them
    when it is asked, and ends one that takes them.
    """
    if library is None or not hasattr(library, "may_use_tiles"):  # tiles.h left them out
        return None
    return bool(library.may_use_tiles())


def _is_private(folder: Path) -> bool:
    """Whether nobody else could have put a library there: what it does, it does as this user.

    TorchInductor's folder is one below /tmp whose name everybody can tell.
    """
    if not hasattr(os, "getuid"):
        return True
    state = folder.stat()
    return state.st_uid in (0, os.getuid()) and not state.st_mode & stat.S_IWOTH


def _compiled(compiler: str, source: Path, path: Path) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        command = [compiler, *FLAGS, f"-I{HEADERS}", "-o", str(made), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        made.replace(path)  # whole or not at all, also where two processes compile
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """What -march=native depends on: a folder may be shared by machines."""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(DESCRIBES)}))
    return f"{platform.machine()} {platform.processor()}"


def cache_folder() -> Path:
    """Where what is compiled is kept: TorchInductor's folder; TORCHINDUCTOR_CACHE_DIR moves it.

    Not asked of TorchInductor, whose import takes most of a second.
    """
    if chosen := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(chosen)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid_{os.getuid()}"
    user = re.sub(r'[\\/:*?"<>|]', "_", user)
    return Path(tempfile.gettempdir(), f"torchinductor_{user}")
