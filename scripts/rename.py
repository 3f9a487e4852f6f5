"""Give the package a name of your own: python scripts/rename.py my_name.

Renames the folder and every mention of it in tracked files: imports, class paths in YAML,
pyproject.toml, documentation. Needs a clean git tree, so that `git diff` shows all it did and
`git reset --hard` undoes it.
"""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Rename; exits with 2 if that cannot be done."""
    parser = argparse.ArgumentParser(description="Rename the package and all that mentions it.")
    parser.add_argument("name", help="new name of the package, such as my_name")
    new = parser.parse_args().name
    old = current_name()
    try:
        check_name(new, old)
        files = tracked_files()
        changes = renamed(files, old, new)
    except ValueError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(2)
    for path, text in changes.items():
        path.write_bytes(text.encode())
    (ROOT / old).rename(ROOT / new)
    print(
        f"{old} is now {new}: {len(changes)} files changed. Next:\n"
        "  make install             # the environment knows the package by its old name\n"
        f"  {Path('.venv/bin/ruff')} check --fix --quiet . && {Path('.venv/bin/ruff')} format .\n"
        "  make test && git add -A && git commit -m 'rename the package'"
    )


def current_name() -> str:
    """The package's name, which follows from the project's: lit-llm is imported as lit_llm."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["name"]).replace("-", "_")


def check_name(new: str, old: str) -> None:
    """Refuse a name that cannot be imported, or that would hide something else.

    Raises:
        ValueError: says which of the two.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", new) or keyword.iskeyword(new):
        raise ValueError(
            f"{new!r} is no name for a package: give lower-case words joined by _, such as my_name"
        )
    if new == old:
        raise ValueError(f"the package is called {old} already")
    if (ROOT / new).exists() or (ROOT / f"{new}.py").exists():
        raise ValueError(f"{new} stands in {ROOT} already: choose another name")
    if new in sys.stdlib_module_names or importlib.util.find_spec(new) is not None:
        raise ValueError(f"{new} is a module that Python knows already: choose another name")


def tracked_files() -> list[Path]:
    """The files under git, from a tree without changes.

    Raises:
        ValueError: there are changes, or there is no git repository.
    """
    changed = _git("status", "--porcelain")
    if changed:
        raise ValueError(
            f"{len(changed.splitlines())} files are changed or new: commit them first, so that "
            "the renaming can be looked at and undone"
        )
    names = _git("ls-files", "-z").split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(
            f"{ROOT} is no git repository: run git init, git add -A and git commit first"
        ) from None
    return done.stdout


def renamed(files: list[Path], old: str, new: str) -> dict[Path, str]:
    """The new text of each file that mentions the old name; a file that is no text has none."""
    package = re.compile(rf"(?<![A-Za-z0-9_]){old}(?![A-Za-z0-9_])")
    # The project's name has dashes. In an address, such as that of a repository, it stays.
    project = re.compile(rf"(?<![A-Za-z0-9_/-]){old.replace('_', '-')}(?![A-Za-z0-9_-])")
    changes = {}
    for path in files:
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        after = project.sub(new.replace("_", "-"), package.sub(new, text))
        if after != text:
            changes[path] = after
    return changes


if __name__ == "__main__":
    main()
