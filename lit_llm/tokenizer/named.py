"""Classes and functions that a file names by their import path.

A checkpoint or a configuration may come from a stranger. What it names is imported, and importing
runs the module: so what cannot be a part of a model is refused before it is imported.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

# Of Python's own, what a setting may be made of: trainer.strategy's timeout.
HARMLESS = ("datetime.timedelta",)


def import_named(path: str) -> Any:
    """The class or function at an import path.

    Raises:
        ValueError: it belongs to Python itself (os.system, subprocess.Popen, builtins.exec), is not
            there, or its module cannot be imported.
    """
    refuse_pythons_own(path)
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the top level of a module does
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path} cannot be imported ({reason}): "
            "put the file that defines it on PYTHONPATH, or restore the class"
        ) from error


def is_pythons_own(path: str) -> bool:
    """Whether an import path leads into the standard library, where no part of a model is."""
    top = path.partition(".")[0]
    return path not in HARMLESS and (top in sys.stdlib_module_names or top == "__main__")


def refuse_pythons_own(path: str) -> None:
    """Refuse what `is_pythons_own`, without importing it.

    Raises:
        ValueError: says which path.
    """
    if is_pythons_own(path):
        raise ValueError(
            f"{path} is no part of a model or a training run: name a class of lit_llm, of PyTorch "
            "or Lightning, or of a file of your own"
        )
