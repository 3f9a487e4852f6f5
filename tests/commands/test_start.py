from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_llm.commands.start import Opening, where_to_start


@pytest.fixture
def start(pretrained, tmp_path, monkeypatch):
    """Where a process of the given rank starts, in a folder that holds a run."""
    run = tmp_path / "run"
    run.mkdir()
    for checkpoint in pretrained.glob("step-*"):
        (run / checkpoint.name).symlink_to(checkpoint)

    def start(rank: int, ckpt_path: str | None = None, **given) -> tuple[str | None, str]:
        monkeypatch.setenv("RANK", str(rank))
        options = {"overwrite": False, "fast_dev_run": False, "max_steps": 10, **given}
        return where_to_start(run, ckpt_path, **options)

    return start


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_is_there_is_not_started_again(start, rank):
    with pytest.raises(ValueError, match="already holds a run"):
        start(rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_continue_from_the_newest_checkpoint(start, rank):
    folder, said = start(rank, "last")
    assert Path(folder).name == "step-00000006"
    assert said.startswith(f"going on from {folder} (the newest valid one")
    assert said.endswith("), step 6 of 10")


def test_a_run_without_checkpoints_starts_at_step_0_and_says_so(tmp_path):
    options = {"overwrite": False, "fast_dev_run": False, "max_steps": 10}
    folder, said = where_to_start(tmp_path / "none", "last", **options)
    assert folder is None
    assert said == f"{tmp_path / 'none'} holds no checkpoint yet: starting at step 0"


@pytest.mark.parametrize("ckpt_path", [None, "last"])
def test_a_run_that_is_to_be_overwritten_stands_until_the_new_one_begins(
    start, tmp_path, ckpt_path
):
    assert start(0, ckpt_path, overwrite=True) == (None, "")
    assert (tmp_path / "run").exists()
    trainer = SimpleNamespace(
        is_global_zero=False, strategy=SimpleNamespace(barrier=lambda name: None)
    )
    Opening(tmp_path / "run", []).on_train_start(trainer, None)
    assert (tmp_path / "run").exists()  # only the first process removes it
    trainer.is_global_zero = True
    Opening(tmp_path / "run", []).on_train_start(trainer, None)
    assert not (tmp_path / "run").exists()


def test_overwrite_does_not_delete_the_run_whose_checkpoint_is_asked_for(start, tmp_path):
    asked = str(tmp_path / "run/step-00000003")
    assert start(0, asked, overwrite=True)[0] == asked
    assert Path(asked).exists()


def test_a_fast_dev_run_continues_nothing(start):
    assert start(0, "last", fast_dev_run=1) == (None, "")
    assert start(0, None, fast_dev_run=1) == (None, "")
