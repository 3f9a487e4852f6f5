import pytest
from jsonargparse import Namespace

from lit_llm.commands.bounds import (
    refuse_bounds,
    refuse_flat,
    refuse_place,
    refuse_run_name,
    refuse_seed,
)
from lit_llm.commands.compose import Configuration

TRAINER = {
    "max_steps": 100,
    "min_steps": None,
    "max_epochs": -1,
    "check_val_every_n_epoch": None,
    "reload_dataloaders_every_n_epochs": 0,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "val_check_interval": 50,
    "limit_train_batches": None,
    "limit_val_batches": None,
    "overfit_batches": 0.0,
    "use_distributed_sampler": False,
    "fast_dev_run": False,
    "callbacks": None,
}


@pytest.fixture
def config(tmp_path):
    """Makes the configuration of a run that can be trained, with some changes."""

    def make(*, data=None, run="mine", monitor=None, **trainer) -> Namespace:
        return Namespace(
            run=run,
            runs_dir=str(tmp_path / "runs"),
            trainer=Namespace(**{**TRAINER, **trainer}),
            data=Namespace(init_args=Namespace(**{"val_fraction": 0.1, **(data or {})})),
            checkpoint=Namespace(monitor=monitor),
        )

    return make


def test_a_run_that_can_be_trained_passes_and_nothing_is_made(config, tmp_path):
    refuse_bounds(config())
    refuse_bounds(config(limit_train_batches=4, max_epochs=3))  # these epochs do end
    refuse_bounds(config(limit_train_batches=4, check_val_every_n_epoch=1))
    refuse_bounds(config(overfit_batches=2, check_val_every_n_epoch=2))
    refuse_bounds(config(monitor="val/loss", gradient_clip_val=None, log_every_n_steps=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_steps", 0),
        ("max_steps", -2),
        ("min_steps", 101),
        ("max_epochs", 0),
        ("max_epochs", 3),
        ("check_val_every_n_epoch", 1),
        ("reload_dataloaders_every_n_epochs", 1),
        ("gradient_clip_val", -0.5),
        ("log_every_n_steps", 0),
        ("val_check_interval", 0),
        ("limit_train_batches", 0),
        ("use_distributed_sampler", True),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused_with_its_key(config, key, value):
    with pytest.raises(ValueError, match=rf"^trainer\.{key}={value}: "):
        refuse_bounds(config(**{key: value}))


def test_a_metric_that_is_almost_one_of_ours_is_a_mistake_and_another_may_be_a_callbacks(config):
    with pytest.raises(ValueError, match=r"checkpoint.monitor=val/los: .* did you mean val/loss\?"):
        refuse_bounds(config(monitor="val/los"))
    with pytest.raises(ValueError, match=r"checkpoint\.monitor=accuracy: no such metric"):
        refuse_bounds(config(monitor="accuracy"))
    stopping = Namespace(class_path="EarlyStopping", init_args=Namespace(monitor="accuracy"))
    refuse_bounds(config(monitor="accuracy", callbacks=[stopping]))  # it may log this
    stopping.init_args.monitor = "train/los"
    with pytest.raises(ValueError, match=r"EarlyStopping.monitor=train/los.* train/loss\?"):
        refuse_bounds(config(callbacks=[stopping]))


@pytest.mark.parametrize("monitor", ["train/grad_norm", "lr/matrix", "lr/embedding"])
def test_every_metric_that_is_logged_may_be_waited_for(config, monitor):
    refuse_bounds(config(monitor=monitor))
    with pytest.raises(ValueError, match="no such metric"):
        refuse_bounds(config(monitor=monitor + "x"))


@pytest.mark.parametrize("monitor", ["val/loss_ema", "val/loss_2", "val/loss/web", "val/los"])
def test_what_a_callback_of_the_users_logs_is_known_when_it_has(config, monitor):
    with pytest.raises(ValueError, match=r"did you mean val/loss\?"):
        refuse_bounds(config(monitor=monitor))
    theirs = Namespace(class_path="my_project.Average", init_args=Namespace())
    refuse_bounds(config(monitor=monitor, callbacks=[theirs]))
    refuse_bounds(config(monitor=monitor, callbacks=theirs))
    with pytest.raises(ValueError, match="nothing is kept for validation"):
        refuse_bounds(config(monitor=monitor, callbacks=[theirs], data={"val_fraction": 0}))


def test_a_prepared_cache_may_lie_where_nobody_can_write(config, tmp_path):
    """`prepare` alone knows whether there is anything to write."""
    (tmp_path / "read_only").write_text("")
    refuse_bounds(config(data={"cache_dir": str(tmp_path / "read_only")}))


@pytest.mark.parametrize("none", [{"limit_val_batches": 0}, {"data": {"val_fraction": 0}}])
def test_a_run_without_validation_has_no_validation_loss_to_wait_for(config, none):
    with pytest.raises(ValueError, match="nothing is kept for validation"):
        refuse_bounds(config(monitor="val/loss", **none))


@pytest.mark.parametrize("name", ["", ".", "../x", "a/../../x", "/tmp/x", "a\0b", "x" * 300])
def test_the_folder_of_a_run_is_below_runs_dir(name):
    with pytest.raises(ValueError, match="run="):
        refuse_run_name(name)
    refuse_run_name("quickstart/pretrain")
    refuse_run_name("2020-01-01 with ü and ..dots")


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file/deeper/still"):
        with pytest.raises(ValueError, match=r"runs_dir: .*file is a file and no folder"):
            refuse_place("runs_dir", place)
    refuse_place("runs_dir", tmp_path / "new/deeper")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_seed_is_a_number_that_every_library_takes(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seed_everything: -1\n")
    with pytest.raises(ValueError, match=r"mine.yaml: seed_everything=-1: give a number from 0"):
        refuse_seed(Configuration([file]), [])
    refuse_seed(Configuration([file]), ["--seed_everything", "4294967295"])
    for flag in "--seed_everything=4294967296", "--seed_everything=false":
        with pytest.raises(ValueError, match="--seed_everything="):
            refuse_seed(Configuration(), [flag])


@pytest.mark.parametrize(
    "text", ["trainer: null", "model: [1]", "model: {gpt: null}", "data: null", "checkpoint: 3"]
)
def test_null_in_place_of_keys_does_not_silently_become_the_defaults(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine.yaml: [\w.]+ holds keys, got "):
        refuse_flat(Configuration([file]), [])
