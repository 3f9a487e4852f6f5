"""How a run ends that a signal has stopped: what is saved, who starts it again, the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import NoReturn

from lit_llm.callbacks.signals import Stopped
from lit_llm.commands.launch import launcher
from lit_llm.commands.processes import is_first_process

SCONTROL_SECONDS = 60


def leave(stopped: Stopped) -> NoReturn:
    """Say what was saved and exit with 128 + signal, as a shell says of a process that it killed.

    In a SLURM job SIGUSR1 means that its time is nearly over: the first process has the job
    queued again, and then all exit with 0. The others exit with 0 in any case, unless torchrun
    has started them: Lightning and `srun --kill-on-bad-exit` would kill the first one, which may
    still have something to do, as soon as another exits with anything else.
    """
    queued = False
    if is_first_process():
        name = signal.Signals(stopped.signum).name
        saved = stopped.checkpoint
        what = f"{saved} has it" if saved else "no step since the start: there is nothing to save"
        if stopped.unsound is not None:
            from_where = f"the newest checkpoint is {saved}" if saved else "there is no checkpoint"
            what = f"{stopped.unsound}, so it is not saved; {from_where}"
        print(f"\n{name} stopped this run after step {stopped.step}: {what}", file=sys.stderr)
        if job := job_to_queue(stopped.signum):
            queued = requeue(job)
        if not queued:
            print("to go on: the same command with --ckpt_path last", file=sys.stderr)
    elif "SLURM_PROCID" in os.environ or launcher() is None:
        sys.exit(0)
    sys.exit(0 if queued else 128 + stopped.signum)


def job_to_queue(signum: int, environment: Mapping[str, str] = os.environ) -> str | None:
    """The SLURM job that a signal asks to queue again; None if it asks for nothing of that."""
    if signum != getattr(signal, "SIGUSR1", None):
        return None
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def requeue(job: str) -> bool:
    """Have SLURM queue a job again; if it refuses, show why."""
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job],
            capture_output=True,
            text=True,
            timeout=SCONTROL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    else:
        if done.returncode == 0:
            print(f"SLURM has queued job {job} again", file=sys.stderr)
            return True
        reason = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    print(f"SLURM did not queue job {job} again: scontrol says: {reason}", file=sys.stderr)
    return False
