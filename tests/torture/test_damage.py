"""Row 5: a file is damaged at rest, and that is found before anything of it is used."""

import json
import shutil
from functools import partial
from pathlib import Path
from random import Random

import pytest

from lit_llm.checkpoint.find import LAST, checkpoints, choose
from lit_llm.checkpoint.manifest import MANIFEST, CheckpointError
from lit_llm.data.assemble import open_prepared
from tests.torture.rows import row
from tests.torture.saves import (
    FORMS,
    INJURIES,
    files,
    injure,
    predict,
    resume,
    resume_sharded,
    save,
)
from tests.torture.state import assert_equal

FSDP = "-c configs/trainer/fsdp.yaml --trainer.accelerator=cpu --trainer.devices=2".split()
FSDP += ["--trainer.precision=32-true"]


@pytest.fixture(scope="module")
def runs(pretrained, zygote, tiny_fit_arguments, request, tmp_path_factory) -> dict[str, Path]:
    """A run of each form with checkpoints of two steps."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(pretrained, folder / "plain")
    if request.config.getoption("--torture"):
        running = zygote.launch(
            *tiny_fit_arguments(folder, "--run=sharded", *FSDP, "--trainer.max_steps=6"), ranks=2
        )
        assert running.wait(300) == 0, running.err
        assert (folder / "sharded/step-00000006/shard-00001.safetensors").is_file()
    else:  # what one process writes takes a hundredth of the time
        for checkpoint in checkpoints(pretrained):
            save(resume(checkpoint), folder / "sharded" / checkpoint.name, "sharded")
    assert all(len(checkpoints(folder / form)) == 2 for form in FORMS)
    return {form: folder / form for form in FORMS}


def injured_file(folder: Path, other: Path, injury: str, draw: Random) -> Path:
    """Damage a file of `folder`; `other` is another one that has the same files."""
    unlike = [
        path
        for path in files(folder)
        if (other / path.relative_to(folder)).read_bytes() != path.read_bytes()
    ]
    path = draw.choice(unlike if injury == "swapped" else files(folder))
    injure(path, injury, draw, other / path.relative_to(folder))
    return path


def assert_named(path: Path, injury: str, message: str) -> None:
    if (path.name, injury) == (MANIFEST, "swapped"):
        # What belongs to another checkpoint is then all else, of which the first file is named.
        assert f"{path.parent}/" in message
    else:
        assert path.name in message
    assert str(path.parent) in message


CHECKPOINT_TRIALS = {"flip": 140, "cut": 35, "missing": 14, "swapped": 14}
FAST_TRIALS = {"flip": 24, "cut": 8, "missing": 4, "swapped": 4}


@row(5)
@pytest.mark.parametrize("injury", INJURIES)
def test_a_damaged_checkpoint_is_never_read(trials, draw, runs, tmp_path, injury):
    """By whatever reads it; and the newest valid one is the one before it."""
    gpt, _ = predict(runs["plain"])  # as the configuration has it, whatever the checkpoint says
    for trial in trials(full=CHECKPOINT_TRIALS[injury], fast=FAST_TRIALS[injury]):
        with trial:
            form = FORMS[trial.number % 2]
            run = tmp_path / str(trial.number)
            shutil.copytree(runs[form], run, copy_function=shutil.copyfile)
            older, newest = checkpoints(run)
            path = injured_file(newest, older, injury, draw)
            for load in (resume, predict, partial(resume_sharded, gpt=gpt)):
                with pytest.raises(CheckpointError) as raised:
                    load(newest)
                assert_named(path, injury, str(raised.value))
            choice = choose(LAST, run)
            assert choice.folder == older
            assert_named(path, injury, choice.why)
            shutil.rmtree(run)


DATA_TRIALS = {"flip": 50, "cut": 12, "missing": 4, "swapped": 4}


@pytest.fixture(scope="module")
def prepared(pretrained, cache) -> Path:
    """The corpus of that run: shards of both splits, the tokenizer, and what describes them."""
    meta = json.loads((checkpoints(pretrained)[-1] / "bundle.json").read_text())
    (folder,) = [
        path
        for path in Path(cache, "prepared").iterdir()
        if (path / "tokenizer/tokenizer.model").is_file()
        and (path / "tokenizer/tokenizer.model").read_bytes()
        == (checkpoints(pretrained)[-1] / "tokenizer.model").read_bytes()
        and not json.loads((path / "train/manifest.json").read_text())["has_mask"]
    ]
    assert meta["data"]
    return folder


@row(5)
@pytest.mark.parametrize("injury", INJURIES)
def test_damaged_data_is_never_trained_on(trials, draw, prepared, tmp_path, injury):
    """`Prepared.verify` is what fit, validate and test call when they open the data."""
    for trial in trials(full=DATA_TRIALS[injury], fast=FAST_TRIALS[injury]):
        with trial:
            folder = tmp_path / str(trial.number)
            shutil.copytree(prepared, folder, copy_function=shutil.copyfile)
            path = draw.choice([path for path in files(folder) if path.stat().st_size])
            others = [one for one in files(folder) if one.read_bytes() != path.read_bytes()]
            injure(path, injury, draw, draw.choice(others))
            with pytest.raises(ValueError, match="damaged") as raised:
                open_prepared(folder).verify()
            # A hash that flipped in a manifest accuses the file whose hash it was.
            named = folder if path.name == MANIFEST else path
            assert str(named) in str(raised.value)
            shutil.rmtree(folder)


FIT_TRIALS = [injury for injury, n in zip(INJURIES, (10, 3, 2, 2), strict=True) for _ in range(n)]


@row(5)
def test_fit_goes_on_from_the_newest_good_checkpoint_and_says_so(
    trials, draw, runs, cli, launch, tiny_fit_arguments, tmp_path
):
    """And ends where the run had ended that was not damaged; each sixth of two processes."""
    injuries = draw.sample(FIT_TRIALS, len(FIT_TRIALS))
    for trial in trials(full=len(FIT_TRIALS), fast=1):
        with trial:
            injury, form = injuries[trial.number], FORMS[trial.number % 6 == 5]
            run = tmp_path / str(trial.number) / form
            shutil.copytree(runs[form], run, copy_function=shutil.copyfile)
            older, newest = checkpoints(run)
            path = injured_file(newest, older, injury, draw)
            more = [f"--run={form}", "--ckpt_path=last", "--samples.every_n_steps=1000"]
            if form == "plain":
                done = cli(*tiny_fit_arguments(run.parent, *more))
                code = done.code
            else:
                done = launch(*tiny_fit_arguments(run.parent, *more, *FSDP), ranks=2)
                code = done.wait(300)
            said = done.out + done.err
            assert code == 0, said
            assert said.count(f"going on from {older} (the newest valid one") == 1
            assert_named(path, injury, said.partition("passed over: ")[2].splitlines()[0])
            resumed, whole = (predict(folder / newest.name)[0] for folder in (run, runs[form]))
            assert_equal(dict(resumed.state_dict()), dict(whole.state_dict()))
            assert (run / "abandoned-1" / newest.name).is_dir()
            shutil.rmtree(run)
