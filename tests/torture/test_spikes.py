"""Row 11: a loss that jumps is noticed in its own step, and a sound one never."""

import json

import pytest

from tests.torture.rows import row

SILENT = (
    "--samples.every_n_steps=100000",
    "--trainer.limit_val_batches=0",
    "--checkpoint.every_n_steps=20",
    "--trainer.log_every_n_steps=10",
)
FASTER = ("--model.optimizer.init_args.lr=3e-3", "--model.schedule.init_args.warmup_steps=10")
KINDS = ("random", "shuffled", "shifted")
FROM = 100  # by then the tiny network has learned enough that nonsense surprises it


@pytest.fixture
def poisoned(cli, tiny_fit_arguments, tmp_path):
    """Fits for some steps, of which some have other tokens than the corpus: its run folder."""

    def poisoned(name, steps, kind, max_steps, *more):
        config = tmp_path / f"{name}.yaml"
        callback = {"class_path": "tests.torture.injuries.Poison"}
        callback["init_args"] = {"steps": steps, "kind": kind}
        config.write_text(json.dumps({"trainer": {"callbacks": [callback]}}))
        arguments = ("--run", name, "-c", config, f"--trainer.max_steps={max_steps}")
        finished = cli(*tiny_fit_arguments(tmp_path, *arguments, *SILENT, *FASTER, *more))
        assert finished.code == 0, finished.err
        return finished, tmp_path / name

    return poisoned


def found(run) -> list[dict]:
    file = run / "skipped_steps.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@row(11)
def test_poisoned_batches_are_found_in_their_own_step_and_done_with_as_asked_for(
    trials, draw, poisoned
):
    for trial in trials(full=6, fast=1):
        with trial:
            kind, on_spike = KINDS[trial.number % 3], ("skip", "rewind")[trial.number % 2]
            steps = sorted(draw.sample(range(FROM, FROM + 30), 6))
            asked = (f"--spike_guard.on_spike={on_spike}", f"--seed_everything={trial.number}")
            name = f"{trial.number}-{kind}"
            finished, run = poisoned(name, steps, kind, FROM + 32, *asked)
            lines = found(run)
            assert [line["step"] for line in lines] == steps
            assert {line["action"] for line in lines} == {
                {"skip": "skipped", "rewind": "rewound"}[on_spike]
            }
            assert [line["samples"][0][0] for line in lines] == [4 * step - 4 for step in steps]
            backs = finished.err.count("going back to the newest checkpoint")
            assert backs == (6 if on_spike == "rewind" else 0)


@row(11)
def test_500_sound_steps_have_no_spike(trials, draw, poisoned):
    with trials.one():
        more = (f"--seed_everything={draw.randrange(1000)}", "--spike_guard.on_spike=skip")
        steps = 564 if trials.full_tier else 164  # of which 64 fill the window
        _, run = poisoned("sound", [], "random", steps, *more)
        assert found(run) == []
        assert (run / f"step-{steps:08d}").exists()
