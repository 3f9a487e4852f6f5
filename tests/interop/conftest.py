"""The battery of `make interop`, and the table that it ends with."""

import os
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.interop.smollm2 import publish_smollm2

FOUND: list[tuple[str, str, str]] = []


@pytest.fixture
def found():
    """Notes a figure for the table."""

    def note(what: str, direction: str, figure: str) -> None:
        FOUND.append((what, direction, figure))

    return note


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """SmolLM2-135M-Instruct as transformers saves it, kept where LIT_LLM_INTEROP_CACHE says."""
    kept = os.environ.get("LIT_LLM_INTEROP_CACHE")
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("smollm2")) / "smollm2-135m-instruct"
    folder.parent.mkdir(parents=True, exist_ok=True)
    publish_smollm2(folder)
    return folder


def pytest_terminal_summary():
    if not FOUND:
        return
    table = Table("what", "direction", "found", title="interop", title_justify="left")
    for row in FOUND:
        table.add_row(*row)
    Console(width=120).print(table)
