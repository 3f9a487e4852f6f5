import os
import signal
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit_llm.callbacks import Checkpoint, CSVLog, Signals, Stopped, Throughput
from lit_llm.callbacks.csv_log import read_rows
from lit_llm.callbacks.signals import SIGNALS
from lit_llm.training.guards import Rewind


@pytest.fixture(autouse=True)
def handlers():
    """What pytest does on a signal; a run that was stopped leaves its own handlers."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield before
    for signum, handler in before.items():
        signal.signal(signum, handler)


class At(L.Callback):
    """Calls a function when a hook is called for the n-th time."""

    def __init__(self, hook: str, n: int, act) -> None:
        self.left = n
        setattr(self, hook, lambda *_, **__: self.count(act))

    def count(self, act) -> None:
        self.left -= 1
        if self.left == 0:
            act()


def sends(signum):
    return lambda: os.kill(os.getpid(), signum)


def names(run):
    return sorted(path.name for path in run.glob("step-*"))


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)
def test_a_signal_stops_after_the_step_that_it_meets_and_saves_that(fit, run, signum):
    at = At("on_train_batch_start", 5, sends(signum))
    with pytest.raises(Stopped) as stopped:
        fit([Signals(), Checkpoint(every_n_steps=100), at], max_steps=9)
    assert names(run) == ["step-00000005"]
    assert stopped.value.signum == signum
    assert stopped.value.step == 5
    assert stopped.value.checkpoint == run / "step-00000005"


class Unsound(L.Callback):
    """Wants back instead of letting a step be saved, as a guard with a spike does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        if trainer.global_step >= self.step:
            raise Rewind("a spike", progress=True, limit=1)


@pytest.mark.parametrize(("every", "newest"), [(2, "step-00000004"), (100, None)])
def test_a_signal_stops_a_run_whose_step_must_not_be_saved(fit, run, every, newest):
    at = At("on_train_batch_start", 5, sends(signal.SIGTERM))
    checkpoint = Checkpoint(every_n_steps=every)
    with pytest.raises(Stopped) as stopped:
        fit([Signals(), checkpoint, Unsound(5), at], max_steps=9)
    assert (stopped.value.step, stopped.value.unsound) == (5, "a spike")
    assert stopped.value.checkpoint == (newest and run / newest)
    assert names(run)[-1:] == [newest][: newest is not None]


def test_a_signal_in_a_step_that_goes_back_stops_the_next_attempt(fit, run):
    def go_back():
        sends(signal.SIGTERM)()
        raise Rewind("a spike", progress=True, limit=1)

    with pytest.raises(Rewind):
        fit([Signals(), Checkpoint(), At("on_train_batch_start", 5, go_back)])
    with pytest.raises(Stopped, match="SIGTERM stopped the run after step 3") as stopped:
        fit([Signals(), Checkpoint()], ckpt_path=str(run / "step-00000003"))
    assert stopped.value.signum == signal.SIGTERM
    trainer, _ = fit([Signals(), Checkpoint()], ckpt_path=str(run / "step-00000003"))
    assert trainer.global_step == 6  # it has stopped one attempt, and no more


def test_with_accumulation_a_signal_waits_for_the_end_of_the_step(fit, run):
    at = At("on_train_batch_start", 7, sends(signal.SIGTERM))  # first micro-batch of step 3
    options = {"accumulate_grad_batches": 3, "val_check_interval": 9}
    with pytest.raises(Stopped, match="SIGTERM stopped the run after step 3"):
        fit([Signals(), Checkpoint(), at], max_steps=9, **options)
    assert names(run) == ["step-00000003"]


def test_the_run_that_goes_on_is_the_uninterrupted_one(fit, run, tiny_lm):
    _, whole = fit([Signals()], max_steps=8, model=tiny_lm(dropout=0.0))
    at = At("on_train_batch_start", 5, sends(signal.SIGINT))
    with pytest.raises(Stopped) as stopped:
        fit([Signals(), Checkpoint(), at], max_steps=8, model=tiny_lm(dropout=0.0))
    saved = str(stopped.value.checkpoint)
    _, resumed = fit([Signals(), Checkpoint()], max_steps=8, model=tiny_lm(0.0), ckpt_path=saved)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_log_has_the_row_of_the_step_that_was_saved(fit, run):
    at = At("on_train_batch_start", 4, sends(signal.SIGTERM))
    callbacks = [Signals(), Checkpoint(), Throughput(), at]
    with pytest.raises(Stopped):
        fit(callbacks, logger=CSVLog(str(run)), val_check_interval=100)
    assert [int(row["step"]) for row in read_rows(run / "metrics.csv")[1]] == [2, 4]


def test_a_validation_is_not_waited_for(fit, run):
    seen = []
    at = At("on_validation_batch_start", 1, sends(signal.SIGTERM))
    count = At("on_validation_batch_end", 0, None)
    count.count = lambda _: seen.append(1)
    with pytest.raises(Stopped, match="after step 3"):
        fit([Signals(), Checkpoint(), at, count])
    assert len(seen) == 1  # of 2
    assert names(run) == ["step-00000003"]


def test_a_signal_before_the_first_step_stops_before_it_and_saves_nothing(fit, run):
    at = At("on_train_start", 1, sends(signal.SIGTERM))
    with pytest.raises(Stopped) as stopped:
        fit([at, Signals(), Checkpoint()])
    assert stopped.value.checkpoint is None
    assert names(run) == []


def test_a_save_comes_to_its_end_first(fit, run):
    at = At("on_save_checkpoint", 1, sends(signal.SIGTERM))
    with pytest.raises(Stopped, match="after step 3"):
        fit([Signals(), at, Checkpoint(every_n_steps=2)], val_check_interval=100)
    assert names(run) == ["step-00000002", "step-00000003"]
    assert (run / "step-00000002/manifest.json").exists()


def test_a_signal_in_the_last_step_lets_the_run_end(fit, run, handlers):
    trainer, _ = fit(
        [Signals(), Checkpoint(), At("on_train_batch_start", 6, sends(signal.SIGTERM))],
        limit_val_batches=0,
    )
    assert trainer.global_step == 6
    assert names(run) == ["step-00000006"]


def test_after_a_run_the_handlers_are_those_from_before(fit, handlers):
    fit([Signals()])
    assert {signum: signal.getsignal(signum) for signum in SIGNALS} == handlers


def test_lightning_registers_nothing_of_its_own_in_slurm(fit, run):
    at = At("on_train_batch_start", 5, sends(signal.SIGUSR1))
    environment = SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGUSR1)
    environment.validate_settings = lambda **_: None
    environment.world_size = environment.global_rank = environment.local_rank = None
    with pytest.raises(Stopped):
        fit([Signals(), Checkpoint(), at, InSlurm(environment)])
    assert not list(run.glob("hpc_ckpt*"))


class InSlurm(L.Callback):
    """Lets Lightning believe so when it registers its handlers."""

    def __init__(self, environment) -> None:
        self.environment = environment

    def on_fit_start(self, trainer, pl_module) -> None:
        trainer._accelerator_connector.cluster_environment = self.environment


def test_switched_off_it_leaves_signals_to_lightning(fit, run):
    at = At("on_train_batch_start", 5, sends(signal.SIGTERM))
    with pytest.raises(L.pytorch.utilities.exceptions.SIGTERMException) as stopped:
        fit([Signals(enabled=False), Checkpoint(), at])
    assert not isinstance(stopped.value, Stopped)


def test_a_second_ctrl_c_ends_the_process_at_once_even_in_a_call_that_never_returns(capfd):
    reader, _ = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, Signals().receive)
            os.kill(os.getpid(), signal.SIGINT)
            os.read(reader, 1)  # nobody writes
        finally:
            os._exit(1)
    wait_for(lambda: "Ctrl-C again ends it at once" in capfd.readouterr().err)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT  # 130 in a shell


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_one_that_came_first_is_the_one_that_is_reported(fit):
    def both():
        sends(signal.SIGUSR1)()
        sends(signal.SIGTERM)()

    with pytest.raises(Stopped) as stopped:
        fit([Signals(), At("on_train_batch_start", 2, both)])
    assert stopped.value.signum == signal.SIGUSR1
    assert stopped.value.checkpoint is None  # nobody saves
