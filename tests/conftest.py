import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

# Networks of these tests are tiny: a second thread only gets in the way of the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
OVERLAYS = ROOT / "tests/configs"


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="record golden values instead of comparing"
    )
    parser.addoption("--torture", action="store_true", help="every trial of tests/torture")
    parser.addoption("--rows", default="", help="only these rows of tests/torture: 2,5")
    parser.addoption("--seed", type=int, default=0, help="moments, files and bits of tests/torture")


@pytest.fixture
def update_golden(request) -> bool:
    return request.config.getoption("--update-golden")


@dataclass
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run_command(*arguments: str) -> Finished:
    """Run the command line in this process; the start of another costs seconds."""
    from lit_llm.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return Finished(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli():
    return run_command


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> str:
    """One cache of prepared data for all tests."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_fit(cli, cache):
    """Fits a recipe, shrunk to seconds; further arguments go to the end."""

    def fit(recipe: str, runs: Path, *arguments: str, chat: bool = False) -> Finished:
        overlays = ["tiny-chat.yaml"] if chat else ["tiny.yaml", "tiny-text.yaml"]
        files = [ROOT / "configs/recipes" / recipe, *(OVERLAYS / name for name in overlays)]
        return cli(
            "fit",
            *(part for file in files for part in ("-c", file)),
            f"--data.cache_dir={cache}",
            f"--runs_dir={runs}",
            *arguments,
        )

    return fit


@pytest.fixture(scope="session")
def pretrained(tiny_fit, tmp_path_factory) -> Path:
    """The folder of a tiny pretraining run of six steps."""
    runs = tmp_path_factory.mktemp("runs")
    finished = tiny_fit("quickstart/pretrain.yaml", runs, "--run", "base")
    assert finished.code == 0, finished.err
    return runs / "base"


@pytest.fixture(scope="session")
def finetuned(tiny_fit, pretrained) -> Path:
    """The same, fine-tuned for a few steps."""
    arguments = ["--run", "chat", f"--model.init_from={pretrained}"]
    finished = tiny_fit("quickstart/finetune.yaml", pretrained.parent, *arguments, chat=True)
    assert finished.code == 0, finished.err
    return pretrained.parent / "chat"
