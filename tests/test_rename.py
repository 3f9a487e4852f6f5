"""The template can be renamed: on a copy of the tree, by the script that a user would run."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
PACKAGE = PROJECT.replace("-", "_")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="renaming needs git")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def git(folder: Path, *arguments: str) -> str:
    done = run(folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rename(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "scripts/rename.py", name)


@pytest.fixture
def copy(tmp_path) -> Path:
    """The files of this tree in a repository of their own, committed."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed.returncode != 0:
        pytest.skip("this tree is no git repository")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all", "--force")
    git(tmp_path, "commit", "--quiet", "--message", "copy")
    return tmp_path


def test_a_renamed_package_works_under_its_new_name_alone(copy):
    (copy / "address.md").write_text(f"https://example.org/someone/{PROJECT}.git {PROJECT}\n")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "an address")
    done = rename(copy, "my_name")
    assert done.returncode == 0, done.stderr
    assert not (copy / PACKAGE).exists()
    # Nothing speaks of the old name any more, except an address, which is not ours to change.
    assert run(copy, "git", "grep", "-n", PACKAGE).stdout == ""
    assert (
        copy / "address.md"
    ).read_text() == f"https://example.org/someone/{PROJECT}.git my-name\n"
    project = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == "my-name"
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["my_name*"]

    # -I with the copy alone on the path: the package under its old name may be installed.
    program = (
        "import sys; sys.path.insert(0, '.'); import my_name.cli, my_name.data.corpus;"
        "import my_name.model.gpt, my_name.optim;"
        f"assert not [name for name in sys.modules if name.startswith({PACKAGE!r})]"
    )
    imported = run(copy, sys.executable, "-I", "-c", program)
    assert imported.returncode == 0, imported.stderr
    tests = ("tests/test_architecture.py", "tests/commands/test_compose.py")
    tested = run(copy, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("My-Name", "is no name for a package"),
        ("class", "is no name for a package"),
        ("json", "Python knows already"),
        ("torch", "Python knows already"),
        ("configs", "stands in"),
        ("cli", "stands in"),
        (PACKAGE, "already"),
    ],
)
def test_a_name_that_is_taken_or_no_name_is_refused(name, reason):
    done = rename(ROOT, name)
    assert done.returncode == 2
    assert reason in done.stderr
    assert (ROOT / PACKAGE).is_dir()


def test_a_tree_with_changes_is_refused_and_stays_as_it_is(copy):
    (copy / "new.txt").write_text("not committed")
    done = rename(copy, "my_name")
    assert done.returncode == 2
    assert "1 files are changed or new: commit them first" in done.stderr
    assert (copy / PACKAGE).is_dir()
    assert git(copy, "status", "--porcelain").split() == ["??", "new.txt"]
