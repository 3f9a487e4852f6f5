"""Row 2: a run that is killed and typed again ends as if nothing had happened."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from lit_llm.callbacks.csv_log import read_rows
from lit_llm.checkpoint.find import checkpoints
from tests.torture.rows import row
from tests.torture.state import (
    assert_all_visible_are_whole,
    assert_equal,
    leftovers,
    state_of,
)

STEPS = 24
ELSEWHERE = Path("/dev/shm")


@pytest.fixture
def elsewhere(tmp_path):
    """A folder for temporary files on another file system: the trap of a save through TMPDIR."""
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.fail(f"{ELSEWHERE} is no file system of its own: this row needs one")
    folder = Path(tempfile.mkdtemp(dir=ELSEWHERE))
    yield folder
    shutil.rmtree(folder)


def half_saved(run):
    """Folders of saves that are under way; a removal has such a folder too, for an old step."""
    newest = max((path.name for path in checkpoints(run)), default="")
    return [path for path in run.glob("step-*.tmp-*") if path.name.partition(".")[0] > newest]


def killed_inside_a_save(running, run, passed_over, moment):
    """Kill a process during its next save but `passed_over`; False if that was missed."""
    seen = set()
    while running.alive() and len(seen) <= passed_over:
        seen.update(half_saved(run))
    time.sleep(moment)
    running.kill_all()
    return bool(half_saved(run))


def validations(run):
    """Loss by step; of a run that was killed between a save and its validation one is missing."""
    rows = read_rows(run / "metrics.csv")[1]
    return {int(row["step"]): row["val/loss"] for row in rows if row.get("val/loss")}


@row(2)
def test_a_killed_run_typed_again_ends_with_the_weights_of_one_that_was_not(
    trials, draw, launch, tiny_fit_arguments, tmp_path, elsewhere
):
    def fit(name, *, prepares=False):
        cache = [f"--data.cache_dir={tmp_path / name / 'cache'}"] if prepares else []
        return launch(
            *tiny_fit_arguments(
                tmp_path / name,
                *("--run", "run", "--checkpoint.every_n_steps=2", "--samples.every_n_steps=1000"),
                *(f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=6"),
                *("--model.gpt.dropout=0.1", *cache),
            ),
            env={"TMPDIR": str(elsewhere)},
        )

    def finish(name, **options):
        start = time.monotonic()
        running = fit(name, **options)
        assert running.wait() == 0, running.err
        return time.monotonic() - start

    finish("cold")
    duration = finish("whole")
    reference = state_of(tmp_path / f"whole/run/step-{STEPS:08d}")

    def kill(name, *, inside, prepares):
        """Kill a run at a random moment, again if the moment came too late."""
        run = tmp_path / name / "run"
        for _ in range(50):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            running = fit(name, prepares=prepares)
            if inside:
                moment = draw.uniform(0, 0.003)  # a save takes a few milliseconds
                hit = killed_inside_a_save(running, run, draw.randrange(STEPS // 2 - 1), moment)
            else:
                time.sleep(draw.uniform(0, duration))
                running.kill_all()
                hit = True
            if running.wait() == -signal.SIGKILL and hit:
                return run
        raise AssertionError("50 kills came too late")

    for trial in trials(full=40, fast=2):
        with trial:
            name, inside = f"killed-{trial.number}", bool(trial.number % 2)
            prepares = trial.number % 10 == 4  # some are killed while they prepare their data
            run = kill(name, inside=inside, prepares=prepares)
            assert_all_visible_are_whole(run)
            was_complete = run / f"step-{STEPS:08d}" in checkpoints(run)
            finish(name, prepares=prepares)
            assert_equal(reference, state_of(run / f"step-{STEPS:08d}"))
            found, whole = validations(run), validations(tmp_path / "whole/run")
            assert found.items() <= whole.items()
            # Killed behind its last save, a run is complete, and is not begun again to validate.
            assert STEPS in found or was_complete
            assert_all_visible_are_whole(run)
            assert not leftovers(tmp_path / name)
            assert not os.listdir(elsewhere)
            shutil.rmtree(tmp_path / name)
