import json
import signal
import time
from itertools import product

import pytest

from lit_llm.checkpoint.find import checkpoints
from tests.torture.rows import row
from tests.torture.state import assert_equal, state_of

STEPS = 24
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 138}
SLOW = ("--trainer.callbacks+=tests.torture.hangs.Slow", "--trainer.callbacks.seconds=0.05")


@pytest.fixture(scope="module")
def fit(tiny_fit_arguments, tmp_path_factory):
    """The arguments of a run: dropout, accumulation, validations and saves."""
    runs = tmp_path_factory.mktemp("runs")

    def fit(name, ranks, *more):
        two = ["--trainer.devices=2", "--trainer.strategy=ddp"] if ranks == 2 else []
        arguments = tiny_fit_arguments(
            *(runs, "--run", name, f"--trainer.max_steps={STEPS}"),
            "--trainer.val_check_interval=7",
            *("--data.global_batch_size=4", f"--data.micro_batch_size={2 // ranks}"),
            *("--model.gpt.dropout=0.1", "--checkpoint.every_n_steps=5", "--ckpt_path=last"),
            *("--samples.every_n_steps=1000", *two, *more),
        )
        return runs / name, arguments

    return fit


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def stopped_and_resumed(fit, launch, draw, name, ranks, signum):
    """The state of the whole run, and that of one that a signal stopped and that went on."""
    whole, arguments = fit(f"whole-{ranks}", ranks)
    if not whole.exists():
        running = launch(*arguments, ranks=ranks)
        assert running.wait() == 0, running.err
    workers = f"--data.num_workers={draw.choice([0, 1])}"
    run, arguments = fit(name, ranks, workers, *SLOW)
    running = launch(*arguments, ranks=ranks)
    moment = draw.randint(1, STEPS // 2)
    wait_for(lambda: trained(run) >= moment or not running.alive())
    time.sleep(draw.random() * 0.3)
    if draw.random() < 0.5:
        running.send_group(signum)  # as Ctrl-C does
    else:
        running.send(signum, rank=draw.randrange(ranks))
    assert running.wait() == CODES[signum], running.err
    assert set(running.codes) == {CODES[signum]}
    saved = checkpoints(run)[-1]
    step = json.loads((saved / "bundle.json").read_text())["step"]
    said = f"{signum.name} stopped this run after step {step}: {saved} has it"
    assert running.err.count(said) == 1
    assert running.err.count("--ckpt_path last") == 1
    assert "Traceback" not in running.err
    assert moment <= step < STEPS
    run, arguments = fit(name, ranks, workers)
    running = launch(*arguments, ranks=ranks)
    assert running.wait() == 0, running.err
    end = f"step-{STEPS:08d}"
    return state_of(whole / end), state_of(run / end)


def trained(run) -> int:
    """The newest step in the log of a run."""
    try:
        rows = (run / "metrics.csv").read_text().splitlines()[1:]
    except FileNotFoundError:
        return 0
    return max((int(row.split(",")[0]) for row in rows), default=0)


@row(13)
def test_a_signal_saves_the_step_and_the_resumed_run_is_the_uninterrupted_one(
    trials, draw, launch, fit
):
    kinds = list(product([1, 2], CODES, range(4)))  # processes, signal, which of four
    for trial in trials(full=len(kinds), fast=1):
        ranks, signum, fourth = kinds[trial.number] if trials.full_tier else draw.choice(kinds[:12])
        with trial:
            name = f"{ranks}-{signum.name}-{fourth}"
            assert_equal(*stopped_and_resumed(fit, launch, draw, name, ranks, signum))
