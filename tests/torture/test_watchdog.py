import os
import signal
import time
from itertools import product

from lit_llm.callbacks.watcher import processes
from tests.torture.rows import row

TIMEOUT_SECONDS = 6.0  # no step of a tiny run takes as long, on the busiest machine
GRACE_SECONDS = 10.0

# What hangs, and a function that must stand in the stacks.
HANGS = {
    "Asleep": "in asleep",
    "HoldsLock": "in holds_lock",
    "StuckWorker": "in stuck_worker",
    "BlockedSave": "in blocked_write",
    "SIGSTOP": "in _run_stage",  # anywhere in training
}
# The lock is held in one process: a rank of two is no different from one that sleeps.
KINDS = list(product(["Asleep", "StuckWorker", "BlockedSave", "SIGSTOP"], [2, 1]))
KINDS = [("HoldsLock", 1) if kind == ("Asleep", 1) else kind for kind in KINDS]


def group(pid: int) -> list[str]:
    """Command lines of the processes of a process group."""
    found = []
    for other, (_, command) in processes().items():
        try:
            if os.getpgid(other) == pid:
                found.append(command)
        except ProcessLookupError:
            pass
    return found


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@row(12)
def test_a_run_that_hangs_ends_with_all_stacks_and_without_orphans(
    trials, draw, launch, tiny_fit_arguments, tmp_path
):
    for trial in trials(full=len(KINDS), fast=1):
        kind, ranks = KINDS[trial.number] if trials.full_tier else draw.choice(KINDS)
        with trial:
            note = tmp_path / f"hangs-{trial.number}"
            fault = kind if kind != "SIGSTOP" else "Slow"
            given = "seconds=0.2" if fault == "Slow" else f"note={note}"
            more = ["--trainer.devices=2", "--trainer.strategy=ddp"] if ranks == 2 else []
            running = launch(
                *tiny_fit_arguments(tmp_path, "--run", trial.number, "--trainer.max_steps", 10_000),
                "--data.num_workers=1",
                "--checkpoint.every_n_steps=4",
                f"--watchdog.timeout_minutes={TIMEOUT_SECONDS / 60}",
                f"--trainer.callbacks+=tests.torture.hangs.{fault}",
                f"--trainer.callbacks.{given}",
                *more,
                ranks=ranks,
            )
            if kind == "SIGSTOP":
                wait_for((tmp_path / str(trial.number) / "metrics.csv").exists, 60)
                running.send(signal.SIGSTOP, rank=ranks - 1)
                note.touch()
            wait_for(note.exists, 60)
            code = running.wait(TIMEOUT_SECONDS + GRACE_SECONDS + 5)
            took = time.time() - note.stat().st_mtime
            assert code != 0
            assert TIMEOUT_SECONDS - 1 < took < TIMEOUT_SECONDS + GRACE_SECONDS, took
            assert HANGS[kind] in running.err
            for rank, pid in enumerate(running.pids):
                # The other rank may see first that this one is gone; it prints its own stack.
                caught = f"watchdog: process {rank} (pid {pid}) has finished no step" in running.err
                assert caught or f"process {rank} stops: another" in running.err
                assert f"--- pid {pid}: " in running.err or not caught
            assert "--ckpt_path last" in running.err
            wait_for(lambda pid=running.pid: not group(pid), TIMEOUT_SECONDS + GRACE_SECONDS - took)
