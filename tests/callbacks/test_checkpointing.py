import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_llm.callbacks import Checkpoint, NotFinite
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.training.guards import NotSaved, Rewind


@pytest.fixture
def save(fit):
    """`fit` with this callback alone."""

    def save(checkpoint, **options):
        return fit([checkpoint], **options)

    return save


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_each_validation_saves_and_the_last_two_stay(save, run):
    save(Checkpoint(), max_steps=9)  # validation at 3, 6, 9
    assert names(run) == ["step-00000006", "step-00000009"]
    assert not any(path.is_symlink() for path in run.iterdir())


def test_the_end_of_training_is_saved_once(save, run):
    save(Checkpoint(every_n_steps=2, keep_last=None), max_steps=5)
    assert names(run) == ["step-00000002", "step-00000004", "step-00000005"]


def test_a_run_without_validation_saves_at_its_end(save, run):
    save(Checkpoint(), max_steps=5, limit_val_batches=0)
    assert names(run) == ["step-00000005"]


def test_the_best_stays_beside_the_last(save, run, tiny_lm, monkeypatch):
    def rising(self):
        self.log_dict({"val/loss": float(self.trainer.global_step)})

    monkeypatch.setattr(tiny_lm, "on_validation_epoch_end", rising)
    checkpoint = Checkpoint(keep_last=1, monitor="val/loss")
    save(checkpoint, max_steps=9)
    assert names(run) == ["step-00000003", "step-00000009"]
    assert checkpoint.best_model_path == str(run / "step-00000003")


def test_an_unknown_monitor_is_an_error_that_names_the_others(save):
    with pytest.raises(ValueError, match=r"monitor='val/los'.*val/loss"):
        save(Checkpoint(monitor="val/los"))


def test_keep_last_counts_what_earlier_sessions_left(save, run):
    save(Checkpoint(every_n_steps=2), max_steps=4, limit_val_batches=0)
    last = str(run / "step-00000004")
    save(Checkpoint(every_n_steps=3), max_steps=6, limit_val_batches=0, ckpt_path=last)
    assert names(run) == ["step-00000004", "step-00000006"]


def test_checkpoints_after_the_resumed_step_are_set_aside(save, run):
    save(Checkpoint(every_n_steps=2, keep_last=None), max_steps=6, limit_val_batches=0)
    early = str(run / "step-00000002")
    save(Checkpoint(), max_steps=3, limit_val_batches=0, ckpt_path=early)
    assert names(run) == ["abandoned-1", "step-00000002", "step-00000003"]
    assert names(run / "abandoned-1") == ["step-00000004", "step-00000006"]


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(save, run, tiny_lm):
    _, whole = save(Checkpoint(keep_last=None), model=tiny_lm(dropout=0), max_steps=9)
    _, resumed = save(
        Checkpoint(),
        model=tiny_lm(dropout=0),
        max_steps=9,
        ckpt_path=str(run / "step-00000003"),
    )
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def break_at(monkeypatch, tiny_lm, step, break_off):
    train = tiny_lm.training_step

    def breaking(self, batch, batch_idx):
        if self.trainer.global_step == step:
            break_off()
        return train(self, batch, batch_idx)

    monkeypatch.setattr(tiny_lm, "training_step", breaking)


def test_an_error_saves_the_last_finished_step(save, run, tiny_lm, monkeypatch):
    def fail():
        raise RuntimeError("out of memory")

    break_at(monkeypatch, tiny_lm, 5, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        save(Checkpoint(), max_steps=9)
    assert names(run) == ["step-00000003", "step-00000005"]


def test_sigterm_saves_the_step_that_it_meets(save, run, tiny_lm, monkeypatch):
    break_at(monkeypatch, tiny_lm, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SIGTERMException):
        save(Checkpoint(), max_steps=9)
    assert names(run) == ["step-00000003", "step-00000005"]


def test_an_optimizer_step_that_broke_off_is_not_saved(save, run, monkeypatch):
    step = torch.optim.AdamW.step

    def half_a_step(self, closure):
        if self.state and next(iter(self.state.values()))["step"] == 4:
            closure()
            raise KeyError("in the middle of the weights")
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", half_a_step)
    with pytest.raises(KeyError):
        save(Checkpoint(), max_steps=9)
    assert names(run) == ["step-00000003"]


class Unsound(L.Callback):
    """Lets nothing be saved from some step on, as a guard does."""

    def __init__(self, step: int, refusal: Exception) -> None:
        self.step, self.refusal = step, refusal

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        if trainer.global_step >= self.step:
            raise self.refusal


REFUSALS = [Rewind("a spike", progress=True, limit=1), NotSaved("a spike"), NotFinite("a spike")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_an_error_goes_on_where_its_step_must_not_be_saved(fit, run, tiny_lm, monkeypatch, refusal):
    def fail():
        raise RuntimeError("out of memory")

    torn_down = []
    monkeypatch.setattr(L.Trainer, "_teardown", lambda self: torn_down.append(1))
    break_at(monkeypatch, tiny_lm, 5, fail)
    with (
        pytest.warns(UserWarning, match=r"step-00000005 is not written: a spike"),
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        fit([Checkpoint(), Unsound(5, refusal)], max_steps=9)
    assert names(run) == ["step-00000003"]
    assert torn_down


@pytest.mark.parametrize(("step", "saved"), [(2, False), (4, True)])
def test_who_goes_back_is_told_whether_this_session_has_saved_anything(
    fit, run, tiny_lm, monkeypatch, step, saved
):
    def go_back():
        raise Rewind("a spike", progress=True, limit=1)

    fit([Checkpoint()], max_steps=1)  # not of the session that goes back
    break_at(monkeypatch, tiny_lm, step, go_back)
    with pytest.raises(Rewind) as rewind:
        fit([Checkpoint()], max_steps=9, ckpt_path=str(run / "step-00000001"))
    assert rewind.value.saved == saved


def test_a_save_that_fails_is_not_tried_again(save, monkeypatch):
    saves = []

    def full(self, checkpoint, path, storage_options=None):
        saves.append(path)
        raise OSError("disk full")

    monkeypatch.setattr(FolderCheckpointIO, "save_checkpoint", full)
    with pytest.raises(OSError, match="disk full"):
        save(Checkpoint())
    assert len(saves) == 1


@pytest.mark.parametrize("setting", [{"keep_last": 0}, {"every_n_steps": 0}])
def test_settings_that_save_nothing_are_refused(setting):
    with pytest.raises(ValueError, match="give 1 or more"):
        Checkpoint(**setting)


def test_a_later_folder_that_lost_its_manifest_is_set_aside_too(save, run):
    """Else the run could not save the step that it bears the name of."""
    save(Checkpoint(every_n_steps=2, keep_last=None), max_steps=6)
    (run / "step-00000006" / "manifest.json").unlink()
    save(Checkpoint(every_n_steps=2), max_steps=6, ckpt_path=str(run / "step-00000004"))
    assert names(run) == ["abandoned-1", "step-00000004", "step-00000006"]
    assert not (run / "abandoned-1/step-00000006/manifest.json").exists()


def test_a_run_whose_checkpoints_would_not_fit_does_not_begin(save, run, tiny_lm, monkeypatch):
    free = SimpleNamespace(total=10**12, free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    size = sum(parameter.nbytes for parameter in tiny_lm().parameters())
    count = len(list(tiny_lm().parameters()))
    each = 3 * size + 4 * count  # the weights, AdamW's two moments, and its counts of steps
    with pytest.raises(ValueError, match=f"need {2 * each:,} bytes .{each:,} each., 100 are free"):
        save(Checkpoint())
    assert not list(run.glob("step-*"))
    save(Checkpoint(), fast_dev_run=True)  # saves nothing


def test_a_check_that_fails_ends_no_process_alone(save, run, monkeypatch):
    def fail(*_, **__):
        raise OSError("stale file handle")

    monkeypatch.setattr("lit_llm.callbacks.checkpointing.check_space", fail)
    with pytest.warns(UserWarning, match=r"whether two checkpoints fit .*stale file handle"):
        save(Checkpoint(), max_steps=3)
    assert names(run) == ["step-00000003"]
