"""Row 2: a run that is killed and typed again ends as if nothing had happened."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.torture.rows import row
from tests.torture.state import (
    assert_all_visible_are_whole,
    assert_equal,
    leftovers,
    state_of,
)

STEPS = 24
ELSEWHERE = Path(
    "/dev/shm"
)  # another file system than the runs': the trap of a save through TMPDIR


@pytest.fixture
def elsewhere(tmp_path):
    """A folder for temporary files on another file system, where there is one."""
    if not ELSEWHERE.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=ELSEWHERE))
    yield folder
    shutil.rmtree(folder)


def wait_for_a_save(running, run, passed_over):
    """Until a save is under way, after some others; False if the run ended before."""
    seen = set()
    while running.alive():
        seen.update(path for path in run.glob("step-*.tmp-*") if path not in seen)
        if len(seen) > passed_over:
            return True
    return False


@row(2)
def test_a_killed_run_typed_again_ends_with_the_weights_of_one_that_was_not(
    trials, draw, launch, tiny_fit_arguments, tmp_path, elsewhere
):
    def fit(name):
        # Saves are half of what it does, and every tenth run prepares its data as well.
        cache = [f"--data.cache_dir={tmp_path / name / 'cache'}"] if name.endswith("0") else []
        return launch(
            *tiny_fit_arguments(
                tmp_path / name,
                *("--run", "run", "--checkpoint.every_n_steps=2", "--samples.every_n_steps=1000"),
                *(f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=6"),
                *("--model.gpt.dropout=0.1", *cache),
            ),
            env={"TMPDIR": str(elsewhere)},
        )

    start = time.monotonic()
    whole = fit("whole")
    assert whole.wait() == 0, whole.err
    duration = time.monotonic() - start
    reference = state_of(tmp_path / f"whole/run/step-{STEPS:08d}")

    for trial in trials(full=40, fast=2):
        with trial:
            name = f"killed-{trial.number}"
            run = tmp_path / name / "run"
            running = fit(name)
            if trial.number % 2:
                inside = wait_for_a_save(running, run, passed_over=draw.randrange(STEPS // 2))
                assert inside, running.err
                time.sleep(draw.uniform(0, 0.004))  # a save takes about as long
            else:
                time.sleep(draw.uniform(0, duration))
            running.kill_all()
            assert running.wait() in (0, -signal.SIGKILL)

            assert_all_visible_are_whole(run)
            again = fit(name)
            assert again.wait() == 0, again.err
            assert_equal(reference, state_of(run / f"step-{STEPS:08d}"))
            assert_all_visible_are_whole(run)
            assert not leftovers(tmp_path / name, elsewhere)
            assert not os.listdir(elsewhere)
            shutil.rmtree(tmp_path / name)
