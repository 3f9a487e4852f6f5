from pathlib import Path

import pytest

from lit_llm.commands.start import where_to_start


@pytest.fixture
def start(pretrained, tmp_path, monkeypatch):
    """Where a process of the given rank starts, in a folder that holds a run."""
    run = tmp_path / "run"
    run.mkdir()
    for checkpoint in pretrained.glob("step-*"):
        (run / checkpoint.name).symlink_to(checkpoint)

    def start(rank: int, ckpt_path: str | None = None, **given) -> str | None:
        monkeypatch.setenv("RANK", str(rank))
        options = {"overwrite": False, "fast_dev_run": False, "max_steps": 10, **given}
        return where_to_start(run, ckpt_path, **options)

    return start


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_that_is_there_is_not_started_again(start, rank):
    with pytest.raises(ValueError, match="already holds a run"):
        start(rank)


def test_all_processes_continue_from_the_newest_checkpoint_and_the_first_says_so(start, capsys):
    assert Path(start(1, "last")).name == "step-00000006"
    assert capsys.readouterr().err == ""
    assert Path(start(0, "last")).name == "step-00000006"
    said = capsys.readouterr().err
    assert "going on from" in said
    assert "step 6 of 10" in said


def test_a_run_without_checkpoints_starts_at_step_0_and_says_so(tmp_path, capsys):
    options = {"overwrite": False, "fast_dev_run": False, "max_steps": 10}
    assert where_to_start(tmp_path / "none", "last", **options) is None
    assert "holds no checkpoint yet: starting at step 0" in capsys.readouterr().err


@pytest.mark.parametrize("ckpt_path", [None, "last"])
def test_a_process_that_looks_before_the_first_has_removed_the_old_run_starts_anew(
    start, tmp_path, ckpt_path
):
    assert start(1, ckpt_path, overwrite=True) is None
    assert (tmp_path / "run").exists()  # only the first process removes it
    assert start(0, ckpt_path, overwrite=True) is None
    assert not (tmp_path / "run").exists()


def test_overwrite_does_not_delete_the_run_whose_checkpoint_is_asked_for(start, tmp_path):
    asked = str(tmp_path / "run/step-00000003")
    assert start(0, asked, overwrite=True) == asked
    assert Path(asked).exists()


def test_a_fast_dev_run_continues_nothing(start):
    assert start(0, "last", fast_dev_run=1) is None
    assert start(0, None, fast_dev_run=1) is None
