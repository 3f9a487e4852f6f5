"""Who may import whom. A package may import itself and what stands behind it here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "lit_llm"
ALLOWED = {
    "model": set(),
    "tokenizer": set(),
    "optim": set(),
    "data": {"tokenizer"},
    "objective": {"model", "data"},
    "generation": {"model"},
    "checkpoint": {"model", "tokenizer"},
    "evaluation": {"model", "checkpoint", "generation", "tokenizer"},
    "training": {"model", "data", "objective", "optim", "checkpoint", "generation", "tokenizer"},
    "callbacks": {"training", "generation", "model", "data", "checkpoint", "planning"},
    "planning": {"model", "data", "objective", "optim", "training"},
    "commands": {"training", "callbacks", "checkpoint", "generation", "data", "objective"}
    | {"planning", "tokenizer", "optim", "evaluation"},
    "cli.py": {"commands"},
    "__init__.py": set(),
}
# A served model imports no Lightning, and the network can be read with a PyTorch tutorial.
LIGHTNING = (
    "data/module.py",
    "data/prompt_data.py",
    "checkpoint/lightning_io.py",
    "training/",
    "callbacks/",
    "commands/",
)
FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    relative = path.relative_to(ROOT).as_posix()
    package = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "lit_llm" and rest and rest[0] != package:
            assert rest[0] in ALLOWED[package], f"{package} must not import {name}"
        if top in ("lightning", "pytorch_lightning"):
            assert relative.startswith(LIGHTNING), f"keep Lightning out of {relative}"


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def test_the_rule_covers_every_package():
    there = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert there <= set(ALLOWED)
