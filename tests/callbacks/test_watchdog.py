import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import lightning as L
import pytest

from lit_llm.callbacks import Checkpoint, Watchdog, watcher
from lit_llm.callbacks.watchdog import DUMP_SIGNAL


@pytest.fixture
def watched(monkeypatch):
    """The watchers that were started, by their arguments, with a pipe that a test can read."""
    started = []
    popen = subprocess.Popen

    def start(command, **options):
        process = popen(command, **options)
        process.arguments = command[4:]
        started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    return started


class Then(L.Callback):
    def __init__(self, hook, act) -> None:
        setattr(self, hook, lambda *_, **__: act())


def test_a_run_has_a_watcher_until_it_ends(fit, watched):
    alive = []
    look = Then("on_train_end", lambda: alive.append(watched[0].poll()))
    fit([Watchdog(timeout_minutes=5), look])
    (process,) = watched
    assert process.arguments[1:] == ["300", "0", str(DUMP_SIGNAL)]
    assert alive == [None]
    assert process.returncode == -signal.SIGKILL


def test_after_an_error_it_watches_over_the_save_and_then_ends(fit, watched):
    states = []

    def fails():
        raise RuntimeError("boom")

    save = Then("on_save_checkpoint", lambda: states.append(watched[0].poll()))
    with pytest.raises(RuntimeError, match="boom"):
        fit([Watchdog(), Checkpoint(), save, Then("on_validation_start", fails)])
    assert states == [None]
    assert watched[0].returncode is not None


def test_a_micro_batch_a_validation_batch_a_save_and_the_ends_are_a_beat_each(fit, monkeypatch):
    beats = []
    monkeypatch.setattr(Watchdog, "_beat", lambda *_: beats.append(1))
    for name in ("on_train_batch_end", "on_validation_batch_end", "on_validation_end"):
        monkeypatch.setattr(Watchdog, name, Watchdog._beat)
    for name in ("on_save_checkpoint", "on_train_end"):
        monkeypatch.setattr(Watchdog, name, Watchdog._beat)
    fit([Watchdog(), Checkpoint()], max_steps=6, accumulate_grad_batches=2, val_check_interval=6)
    # 12 micro-batches; validations after 6 and 12, of 2 batches each; 2 saves; the end
    assert len(beats) == 12 + 2 * (2 + 1) + 2 + 1


def test_a_beat_never_waits_and_costs_microseconds(fit):
    dog = Watchdog()
    dog.on_train_start(SimpleNamespace(global_rank=0), None)
    dog._watcher.send_signal(signal.SIGSTOP)  # nobody reads: the pipe is full after 65,536
    before = time.thread_time()
    for _ in range(100_000):
        dog._beat()
    seconds = time.thread_time() - before
    dog._stop()
    assert seconds < 1.0  # 0.05 to 0.1 measured, half of them in a full pipe


def test_a_run_goes_on_when_its_watcher_has_died(fit, watched):
    kill = Then("on_train_batch_start", lambda: (watched[0].kill(), watched[0].wait()))
    with pytest.warns(UserWarning, match="goes on without it"):
        trainer, _ = fit([Watchdog(), kill])
    assert trainer.global_step == 6


def test_what_ends_a_group_does_not_end_its_watcher(fit, watched):
    def ctrl_c():
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
            watched[0].send_signal(getattr(signal, name))
        time.sleep(0.1)
        assert watched[0].poll() is None

    fit([Watchdog(), Then("on_train_end", ctrl_c)])


def test_null_turns_it_off(fit, watched):
    fit([Watchdog(timeout_minutes=None)])
    assert watched == []


@pytest.mark.parametrize("minutes", [0, -1.5])
def test_no_time_at_all_is_refused(minutes):
    with pytest.raises(ValueError, match="would end every run: give more than 0, or null"):
        Watchdog(timeout_minutes=minutes)


def test_windows_has_no_watchdog_and_is_told_so(fit, watched, monkeypatch, caplog):
    monkeypatch.setattr("lit_llm.callbacks.watchdog.DUMP_SIGNAL", None)
    fit([Watchdog()])
    assert watched == []
    assert "no watchdog: Windows" in caplog.text


def test_the_watcher_imports_no_library():
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-I",
        "-S",
        watcher.__file__,
        "1",
        "1",
        "0",
        "12",
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "subprocess" in imported
    assert not imported & {"torch", "numpy", "lightning", "asyncio", "multiprocessing"}
