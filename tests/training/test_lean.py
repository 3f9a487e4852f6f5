import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader

from lit_llm.training.lean import HOOKS, NoProfiler, log_again, make_lean, restore


class Module(L.LightningModule):
    """One weight, and a metric that differs in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch_idx)
        return self.weight * batch.sum()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        log_again(self, {"train/twice": torch.tensor(2.0 * batch_idx), "lr": 0.5 + batch_idx})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Filled(L.Callback):
    """Overrides every hook of a step."""

    def __init__(self) -> None:
        self.called: list[str] = []


for name in HOOKS:
    setattr(Filled, name, lambda self, *_, name=name, **__: self.called.append(name))


def run(module, callbacks, lean=make_lean, **options):
    callbacks = list(callbacks)

    class Lean(L.Callback):
        def setup(self, trainer, pl_module, stage):
            lean(trainer, pl_module)

    options = {"max_steps": 3, "log_every_n_steps": 1, "logger": False, **options}
    trainer = L.Trainer(
        accelerator="cpu",
        callbacks=[Lean(), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader(torch.arange(8.0)))
    return trainer


def test_what_a_callback_fills_is_called_as_before():
    without, with_it = Filled(), Filled()
    run(Module(), [without], lean=lambda *_: None)
    run(Module(), [with_it])
    assert with_it.called == without.called
    assert len(with_it.called) == 3 * len(HOOKS)


def test_a_function_given_to_one_callback_alone_is_called():
    callback, called = L.Callback(), []
    callback.on_after_backward = lambda *_: called.append(1)
    run(Module(), [callback])
    assert len(called) == 3


def test_empty_hooks_are_not_called_and_come_back(monkeypatch):
    def called(*_):
        raise AssertionError("an empty hook was called")

    for name in ("on_after_backward", "on_before_zero_grad"):
        monkeypatch.setattr(L.Callback, name, called)
        monkeypatch.setattr(L.LightningModule, name, called)
    module, callback = Module(), L.Callback()
    trainer = run(module, [callback])
    restore(trainer, module)
    assert callable(callback.on_after_backward)
    assert callable(module.on_before_zero_grad)


def test_a_profiler_of_the_users_stays():
    profiler = SimpleProfiler()
    assert run(Module(), [], profiler=profiler).profiler is profiler
    assert isinstance(run(Module(), []).profiler, NoProfiler)


@pytest.mark.parametrize("wants_number", [True, False])
def test_a_step_is_told_its_number_only_if_it_asks(wants_number):
    module = Module()
    if not wants_number:
        module.training_step = lambda batch: Module.training_step(module, batch, 7)
    run(module, [])
    assert module.seen == ([0, 1, 2] if wants_number else [7, 7, 7])


def test_what_is_logged_again_is_what_log_dict_would_have_logged():
    found = []

    class Reader(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            metrics = (trainer.callback_metrics, trainer.logged_metrics)
            found.append([{k: float(v) for k, v in m.items()} for m in metrics])

    run(Module(), [Reader()])
    expected = [{}] + [{"train/twice": 2.0 * n, "lr": 0.5 + n} for n in range(2)]
    assert [callback for callback, _ in found] == expected
    assert [logged for _, logged in found] == expected


class Validated(Module):
    """Logs in a validation, too, whose hook takes turns with that of a step."""

    def __init__(self, log) -> None:
        super().__init__()
        self.log_metrics = log

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.global_step % 2 == 0:
            step = self.trainer.global_step
            self.log_metrics(self, {"train/x": torch.tensor(0.5 * step), "lr": step})

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.log_dict({"val/x": torch.tensor(float(self.trainer.global_step))})

    def val_dataloader(self):
        return DataLoader(torch.arange(2.0))


class Kept(Logger):
    name = version = ""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, *_, **__): ...

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))


@pytest.mark.parametrize("log", [log_again, L.LightningModule.log_dict])
@pytest.mark.filterwarnings("error:.*the value needs to be floating")  # a rate may be an integer
def test_validations_and_epochs_in_between_change_nothing(log):
    kept = Kept()
    options = {"log_every_n_steps": 2, "val_check_interval": 3, "num_sanity_val_steps": 0}
    run(Validated(log), [], logger=kept, max_steps=11, **options)  # an epoch has 8
    train = [(step, row["train/x"], row["lr"]) for step, row in kept.rows if "train/x" in row]
    # Lightning counts a row's step from 0
    assert train == [(step - 1, 0.5 * step, step) for step in range(2, 11, 2)]
    assert [row["val/x"] for _, row in kept.rows if "val/x" in row] == [3, 6, 11]
