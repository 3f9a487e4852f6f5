import os
import signal
from pathlib import Path

import pytest

from lit_llm.callbacks.signals import Stopped
from lit_llm.commands.leave import job_to_queue, leave

SAVED = Path("checkpoints/a/step-00000012")
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher around this process."""
    for name in [*RANKS, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """A job of SLURM's with a scontrol that writes down what it is asked, or refuses."""
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f"[ -e {tmp_path}/refuse ] || exit 0\n"
        "echo 'Requested operation not permitted' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def code_of(signum: int, step: int = 12, saved: Path | None = SAVED) -> int:
    with pytest.raises(SystemExit) as end:
        leave(Stopped(signum, step, saved))
    return end.value.code


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_the_exit_code_is_that_of_a_shell(name, code, capsys):
    assert code_of(getattr(signal, name)) == code
    err = capsys.readouterr().err
    assert f"{name} stopped this run after step 12: checkpoints/a/step-00000012 has it" in err
    assert "to go on: the same command with --ckpt_path last" in err


@pytest.mark.parametrize(
    ("saved", "there"), [(SAVED, f"the newest checkpoint is {SAVED}"), (None, "no checkpoint")]
)
def test_it_says_why_the_last_step_was_not_saved(capsys, saved, there):
    with pytest.raises(SystemExit) as end:
        leave(Stopped(signal.SIGTERM, 15, saved, "step 15 is a spike"))
    assert end.value.code == 143
    err = capsys.readouterr().err
    assert "after step 15: step 15 is a spike, so it is not saved" in err
    assert there in err


def test_it_says_so_when_there_was_nothing_to_save(capsys):
    code_of(signal.SIGTERM, 0, None)
    assert (
        "after step 0: no step since the start: there is nothing to save" in capsys.readouterr().err
    )


def test_near_the_end_of_its_time_a_job_is_queued_again_once(slurm, capsys):
    assert code_of(signal.SIGUSR1) == 0
    assert (slurm / "asked").read_text() == "requeue 4711\n"
    assert "SLURM has queued job 4711 again" in capsys.readouterr().err


def test_other_processes_of_the_job_ask_for_nothing_and_do_not_fail(slurm, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert code_of(signal.SIGUSR1) == 0
    assert code_of(signal.SIGTERM) == 0  # srun --kill-on-bad-exit would end the first one
    assert not (slurm / "asked").exists()
    assert capsys.readouterr().err == ""


def test_what_scontrol_says_against_it_is_shown(slurm, capsys):
    (slurm / "refuse").touch()
    assert code_of(signal.SIGUSR1) == 138
    err = capsys.readouterr().err
    assert "SLURM did not queue job 4711 again: scontrol says: Requested operation not perm" in err
    assert "to go on: the same command with --ckpt_path last" in err


def test_a_machine_without_scontrol_says_that(monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", "")
    assert code_of(signal.SIGUSR1) == 138
    assert "No such file or directory: 'scontrol'" in capsys.readouterr().err


def test_sigterm_is_no_wish_to_be_queued_again(slurm):
    assert code_of(signal.SIGTERM) == 143
    assert not (slurm / "asked").exists()


def test_a_task_of_an_array_is_queued_again_alone():
    array = {"SLURM_JOB_ID": "99", "SLURM_ARRAY_JOB_ID": "98", "SLURM_ARRAY_TASK_ID": "3"}
    assert job_to_queue(signal.SIGUSR1, array) == "98_3"
    assert job_to_queue(signal.SIGUSR1, {}) is None


def test_one_that_lightning_has_started_ends_well_or_lightning_would_kill_the_first(
    monkeypatch, capsys
):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert code_of(signal.SIGTERM) == 0
    monkeypatch.setenv("RANK", "1")  # torchrun has started this one
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert code_of(signal.SIGTERM) == 143
    assert capsys.readouterr().err == ""
