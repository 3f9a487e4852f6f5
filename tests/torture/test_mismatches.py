"""Row 6: a checkpoint and a configuration that do not belong together are never silently joined."""

import json
import re
import shutil

import pytest
import yaml

from lit_llm.checkpoint.find import checkpoints
from lit_llm.checkpoint.manifest import seal
from tests.torture.rows import row


@pytest.fixture
def go_on(cli, tiny_fit_arguments, pretrained, tmp_path):
    """Continues the pretraining run of six steps under a configuration that was changed."""

    def go_on(*arguments, checkpoint=None):
        checkpoint = checkpoint or checkpoints(pretrained)[-1]
        more = ["--run=more", "--trainer.max_steps=9", "--ckpt_path", checkpoint]
        return cli(*tiny_fit_arguments(tmp_path / "runs", *more, *arguments))

    return go_on


@pytest.fixture
def later(pretrained, tmp_path):
    """A copy of the checkpoint in which a number of a format is one that nobody knows yet."""

    def later(file: str):
        folder = tmp_path / "later"
        shutil.copytree(checkpoints(pretrained)[-1], folder)
        description = json.loads((folder / file).read_text())
        assert "format" in description
        (folder / file).write_text(json.dumps({**description, "format": 99}))
        (folder / "manifest.json").unlink()
        seal(folder)
        return folder

    return later


def refused(finished, *words: str) -> None:
    assert finished.code == 2, finished.err[-2000:]
    # what was verified may have been said before; of the error there is one line, the last
    *before, line = finished.err.splitlines()
    assert line.startswith("error: "), finished.err
    assert all(re.search(": verified | from here on$", said) for said in before), finished.err
    for word in words:
        assert word in line, finished.err
    assert "Traceback" not in finished.err


CHANGES = [
    ("--data.tokenizer.model_type=char", "data.init_args.tokenizer.init_args.model_type"),
    ("--data.tokenizer.vocab_size=330", "data.init_args.tokenizer.init_args.vocab_size=330"),
    ("--model.gpt.d_model=64", "model.gpt.d_model=64"),
    ("--model.gpt.n_layer=3", "model.gpt.n_layer=3"),
    ("--trainer.precision=bf16-true", "trainer.precision=bf16-true keeps the weights in bfloat16"),
    ("--data.seq_len=32", "data.init_args.seq_len=32"),
    ("--data.corpus.people=26", "data.init_args.corpus.init_args.people=26"),
    ("--model.objective=lit_llm.objective.MaskedLM", "model.objective"),
]


@row(6)
def test_another_network_or_other_data_do_not_go_on_with_a_run(trials, draw, go_on):
    changes = draw.sample(CHANGES, len(CHANGES))
    for trial in trials(full=len(changes), fast=2):
        with trial:
            flag, words = changes[trial.number]
            refused(go_on(flag), words)


@row(6)
def test_a_later_format_is_named(trials, go_on, later):
    with trials.one():
        folder = later("bundle.json")
        refused(go_on(checkpoint=folder), "bundle.json has format 99", "install a later lit-llm")


@row(6)
def test_a_run_is_not_continued_and_begun_at_once(trials, go_on, pretrained):
    with trials.one():
        finished = go_on(f"--model.init_from={pretrained}", "--data.tokenizer=null")
        refused(finished, "model.init_from=")


@row(6)
def test_a_checkpoint_of_another_run_is_not_taken_for_ones_own(trials, go_on):
    with trials.one():
        refused(go_on("--seed_everything=7"), "seed_everything=7, but this run was made with 1337")


@row(6)
def test_text_that_changed_under_its_name_is_noticed(trials, cli, tiny_fit_arguments, tmp_path):
    """The configuration is the same to the letter; only the file that it names was edited."""
    (tmp_path / "text").mkdir()
    text, mine = tmp_path / "text/a.txt", tmp_path / "mine.yaml"
    corpus = {
        "class_path": "lit_llm.data.corpus.TextFiles",
        "init_args": {"path": str(text.parent)},
    }
    mine.write_text(
        yaml.safe_dump({"data": {"init_args": {"corpus": corpus, "val_split": "tails"}}})
    )
    arguments = tiny_fit_arguments(tmp_path / "runs", "-c", mine, "--run=a")
    with trials.one():
        text.write_text("the miller sold the baker a sack of flour, and slept. " * 200)
        first = cli(*arguments, "--trainer.max_steps=2", "--data.tokenizer.vocab_size=290")
        assert first.code == 0, first.err[-2000:]
        text.write_text("the baker sold the miller a sack of flour, and slept. " * 200)
        again = [*arguments, "--trainer.max_steps=4", "--data.tokenizer.vocab_size=290"]
        refused(cli(*again, "--ckpt_path=last"), "data.")


def test_another_precision_of_the_same_weights_is_applied_and_printed(go_on):
    finished = go_on("--trainer.precision=bf16-mixed")
    assert finished.code == 0, finished.err[-2000:]
    assert "trainer.precision: 32-true -> bf16-mixed from here on" in finished.err
