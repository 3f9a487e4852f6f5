from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_llm.commands.fit import RunCLI


@pytest.fixture
def where_to_start(pretrained, tmp_path, monkeypatch):
    """Where a process of the given rank starts, in a folder that holds a run."""
    run = tmp_path / "run"
    run.mkdir()
    for checkpoint in pretrained.glob("step-*"):
        (run / checkpoint.name).symlink_to(checkpoint)

    def where_to_start(rank: int, ckpt_path: str | None = None, **config) -> str | None:
        monkeypatch.setenv("RANK", str(rank))
        values = {"overwrite": False, "trainer": {}, **config}
        cli = SimpleNamespace(run_dir=run, config=values, _get=lambda config, key: config[key])
        return RunCLI._where_to_start(cli, ckpt_path)

    return where_to_start


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_is_there_is_not_started_again(where_to_start, rank):
    with pytest.raises(ValueError, match="already holds a run"):
        where_to_start(rank)


def test_all_processes_continue_from_the_newest_checkpoint(where_to_start):
    assert Path(where_to_start(1, "last")).name == "step-00000006"
    assert Path(where_to_start(0, "last")).name == "step-00000006"


def test_a_process_that_looks_before_the_first_has_removed_the_old_run_starts_anew(
    where_to_start, tmp_path
):
    assert where_to_start(1, overwrite=True) is None
    assert (tmp_path / "run").exists()  # only the first process removes it
    assert where_to_start(0, overwrite=True) is None
    assert not (tmp_path / "run").exists()
