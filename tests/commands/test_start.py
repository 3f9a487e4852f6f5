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
def test_a_run_that_is_to_be_overwritten_still_stands(start, tmp_path, ckpt_path):
    assert start(0, ckpt_path, overwrite=True) == (None, "")
    assert (tmp_path / "run/step-00000006").exists()


def test_to_overwrite_and_to_continue_at_once_is_refused(start, tmp_path):
    with pytest.raises(ValueError, match="give one of them"):
        start(0, str(tmp_path / "run/step-00000003"), overwrite=True)


def test_runs_below_the_one_that_is_to_be_overwritten_are_not_deleted(pretrained):
    options = {"overwrite": True, "fast_dev_run": False, "max_steps": 10}
    with pytest.raises(ValueError, match=r"which holds other runs \(base"):
        where_to_start(pretrained.parent, "last", **options)


@pytest.fixture
def old(tmp_path):
    run = tmp_path / "run"
    (run / "step-00000003").mkdir(parents=True)
    (run / "metrics.csv").write_text("old")
    return run


def trainer(first=True):
    return SimpleNamespace(
        is_global_zero=first, strategy=SimpleNamespace(barrier=lambda name: None)
    )


def test_the_old_run_is_gone_when_the_new_one_makes_its_first_step(old):
    opening = Opening(old, [])
    opening.on_train_start(trainer(), None)
    (old / "metrics.csv").write_text("new")  # another callback's
    opening.on_train_epoch_start(trainer(), None)
    assert [path.name for path in old.iterdir()] == ["metrics.csv"]
    assert (old / "metrics.csv").read_text() == "new"


def test_the_old_run_comes_back_when_the_new_one_is_refused(old):
    opening = Opening(old, [])
    opening.on_train_start(trainer(), None)
    (old / "metrics.csv").write_text("new")
    (old / "tensorboard").mkdir()
    opening.on_exception(trainer(), None, ValueError("the disk is too small"))
    assert sorted(path.name for path in old.iterdir()) == ["metrics.csv", "step-00000003"]
    assert (old / "metrics.csv").read_text() == "old"


def test_only_the_first_process_sets_an_old_run_aside(old):
    Opening(old, []).on_train_start(trainer(first=False), None)
    assert sorted(path.name for path in old.iterdir()) == ["metrics.csv", "step-00000003"]


def test_a_fast_dev_run_continues_nothing(start):
    assert start(0, "last", fast_dev_run=1) == (None, "")
    assert start(0, None, fast_dev_run=1) == (None, "")
