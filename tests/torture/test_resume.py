"""Rows 1 and 14: a run goes on as if it had not been interrupted, on other devices too."""

from itertools import product

import torch

from tests.torture.parts import rows_by_step
from tests.torture.rows import row
from tests.torture.state import assert_equal, state_of

STEPS = 20
ROWS = 6
LOGGED = ("--trainer.callbacks+=tests.torture.parts.RowLog",)
EVERY_STEP = ("--checkpoint.every_n_steps=1", "--checkpoint.keep_last=null")
SILENT = ("--samples.every_n_steps=1000",)
SCHEDULE = ("--model.schedule.warmup_steps=4",)  # the rate rises, and then falls

CASES = [
    {"chat": chat, "accumulate": accumulate, "workers": workers}
    for chat, accumulate, workers in product((False, True), (3, 1), (2, 0))
]


def last(run):
    return run / f"step-{STEPS:08d}"


@row(1)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    trials, draw, launch, tiny_fit_arguments, pretrained, tmp_path
):
    # 8 kinds of run, each resumed from 3 steps, one of which has a validation
    for trial in trials(full=24, fast=2):
        kind, third = divmod(trial.number, 3)
        case = CASES[kind]
        runs = tmp_path / str(kind)

        def fit(name, *more, case=case, runs=runs):
            base = (f"--model.init_from={pretrained}",) if case["chat"] else ()
            return launch(
                *tiny_fit_arguments(
                    runs,
                    *("--run", name, *base, *LOGGED, *EVERY_STEP, *SILENT, *SCHEDULE),
                    *(f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=5"),
                    f"--data.global_batch_size={ROWS}",
                    f"--data.micro_batch_size={ROWS // case['accumulate']}",
                    f"--data.num_workers={case['workers']}",
                    "--model.gpt.dropout=0.2",
                    *more,
                    chat=case["chat"],
                )
            )

        if third == 0:
            whole = fit("whole")
            assert whole.wait() == 0, whole.err
        step = 5 * draw.randint(1, 3) if third == 0 else draw.randint(1, STEPS - 1)
        with trial:
            start = runs / f"whole/step-{step:08d}"
            resumed = fit(f"from-{third}-{step}", f"--ckpt_path={start}")
            assert resumed.wait() == 0, resumed.err
            run = runs / f"from-{third}-{step}"
            assert f"going on from {start}" in resumed.err
            assert_equal(state_of(last(runs / "whole")), state_of(last(run)))
            rows = rows_by_step(runs / "whole")
            assert rows_by_step(run) == {n: rows[n] for n in range(step, STEPS)}
            assert all(len(digests) == ROWS for digests in rows.values())


TORCHRUN, ITSELF = "torchrun", "itself"  # what starts the second process

# Processes and micro-batch of a run, and of the one that goes on with it.
CHANGES = [
    ((2, 1, TORCHRUN), (1, 4, None)),
    ((1, 4, None), (2, 4, TORCHRUN)),
    ((2, 2, ITSELF), (1, 2, None)),
    ((1, 4, None), (1, 1, None)),
]


@row(14)
def test_another_number_of_devices_or_another_micro_batch_is_the_same_run(
    trials, draw, launch, tiny_fit_arguments, tmp_path
):
    def fit(name, processes, micro_batch, started_by, *more):
        two = ("--trainer.strategy=ddp", "--trainer.devices=2") if processes == 2 else ()
        running = launch(
            *tiny_fit_arguments(
                tmp_path,
                *("--run", name, *LOGGED, *EVERY_STEP, *SILENT, *SCHEDULE, *two),
                *(f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=10"),
                *("--data.global_batch_size=8", f"--data.micro_batch_size={micro_batch}"),
                # AdamW divides by the root of its second moment, and so turns another order of
                # the same sum (1e-9) into 1e-3 of a step: small steps keep that below 1e-6.
                *("--model.optimizer.lr=3e-4", "--model.groups.embedding.lr=3e-4", *more),
            ),
            ranks=2 if started_by == TORCHRUN else 1,
        )
        assert running.wait() == 0, running.err
        return tmp_path / name

    whole = fit("whole", 1, 8, None)
    for trial in trials(full=4, fast=1):
        with trial:
            before, after = CHANGES[trial.number]
            step = draw.randint(3, STEPS - 3)
            begun = fit(f"{trial.number}-before", *before)
            start = begun / f"step-{step:08d}"
            ended = fit(f"{trial.number}-after", *after, f"--ckpt_path={start}")

            weights = [state_of(last(run))["weights"] for run in (whole, ended)]
            for name, weight in weights[0].items():
                torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-6)
            rows = rows_by_step(whole)
            assert rows.keys() == set(range(STEPS))
            assert rows_by_step(begun) == rows
            assert rows_by_step(ended) == {n: rows[n] for n in range(step, STEPS)}
