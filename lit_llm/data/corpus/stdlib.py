"""The Python standard library: 10 MB of real text that is on every machine."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from lit_llm.data.corpus.base import Corpus
from lit_llm.data.corpus.files import file_units
from lit_llm.data.corpus.text import TextUnit

LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


class PythonStdlib(Corpus):
    """Source and docstrings of the running interpreter's own modules, a document per file.

    Without tests (half of it, and dull) and installed packages. Another Python version is another
    text, hence another preparation.
    """

    def units(self) -> list[TextUnit]:  # type: ignore[override]
        """Groups of files."""
        root = Path(sysconfig.get_paths()["stdlib"])
        files = []
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if name not in LEFT_OUT]
            paths = [Path(folder, name) for name in names if name.endswith(".py")]
            files += [(path.relative_to(root).as_posix(), path) for path in paths]
        files = [(name, path) for name, path in files if path.stat().st_size]
        if not files:
            raise ValueError(
                f"no .py files in {root}, where this Python's standard library should be: "
                "use a Python with sources, or corpus: TextFiles"
            )
        return file_units(sorted(files), None, lambda spans: TextUnit(spans, None))
