"""The whole path through the command line: fit, continue, fine-tune, answer."""

import json
import re

import pytest
from safetensors.torch import load_file

from lit_llm.checkpoint.find import checkpoints


def test_a_run_folder_holds_what_it_promises(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    assert {"config.yaml", "metrics.csv", "report.html", "report.png", "tensorboard"} <= names
    assert [path.name for path in checkpoints(pretrained)] == ["step-00000003", "step-00000006"]
    rows = (pretrained / "metrics.csv").read_text().splitlines()
    assert {"step", "train/loss", "val/loss", "val/bits_per_byte"} <= set(rows[0].split(","))


def test_a_run_that_is_not_to_be_continued_is_not_overwritten(tiny_fit, pretrained):
    arguments = ("--run", "base", "--ckpt_path", "null")
    again = tiny_fit("quickstart/pretrain.yaml", pretrained.parent, *arguments)
    assert again.code == 2
    assert "already holds a run (step-00000006)" in again.err
    assert "--ckpt_path last" in again.err


def test_a_run_that_is_complete_is_left_as_it_is(tiny_fit, pretrained):
    before = {path: path.stat().st_mtime_ns for path in pretrained.rglob("*")}
    again = tiny_fit("quickstart/pretrain.yaml", pretrained.parent, "--run", "base")
    assert again.code == 0, again.err
    assert "is complete: it stands at step 6 of trainer.max_steps=6" in again.err
    assert {path: path.stat().st_mtime_ns for path in pretrained.rglob("*")} == before


def test_a_complete_run_does_not_pass_for_one_of_another_configuration(tiny_fit, pretrained):
    arguments = ("--run", "base", "--seed_everything", "7")
    again = tiny_fit("quickstart/pretrain.yaml", pretrained.parent, *arguments)
    assert again.code == 2
    assert "seed_everything=7, but this run was made with 1337" in again.err


def test_a_run_can_be_overwritten_on_demand(tiny_fit, tmp_path):
    arguments = ("--run", "again", "--trainer.max_steps=1", "--trainer.limit_val_batches=0")
    assert tiny_fit("quickstart/pretrain.yaml", tmp_path, *arguments).code == 0
    (tmp_path / "again/step-00000001/mark").touch()
    finished = tiny_fit("quickstart/pretrain.yaml", tmp_path, *arguments, "--overwrite=true")
    assert finished.code == 0, finished.err
    assert (tmp_path / "again/step-00000001/model.safetensors").exists()
    assert not (tmp_path / "again/step-00000001/mark").exists()


def test_a_run_is_not_deleted_for_one_that_is_refused(tiny_fit, pretrained):
    for wrong in ("--data.corpus.people=3", "--trainer.accumulate_grad_batches=3"):
        arguments = ("--run", "base", "--overwrite=true", wrong)
        assert tiny_fit("quickstart/pretrain.yaml", pretrained.parent, *arguments).code == 2
        assert checkpoints(pretrained)


def test_a_longer_run_continues_and_says_what_changed(tiny_fit, pretrained, tmp_path):
    runs = tmp_path
    finished = tiny_fit("quickstart/pretrain.yaml", runs, "--run", "base")
    assert finished.code == 0, finished.err
    more = tiny_fit(
        "quickstart/pretrain.yaml",
        runs,
        *("--run", "base", "--trainer.max_steps", "8"),
    )
    assert more.code == 0, more.err
    assert "trainer.max_steps: 6 -> 8 from here on" in more.err
    assert checkpoints(runs / "base")[-1].name == "step-00000008"
    steps = [line.split(",")[0] for line in (runs / "base/metrics.csv").read_text().splitlines()]
    assert steps[1] == "2"  # what the first session logged is still there
    assert steps[-1] == "8"


def test_another_network_is_no_continuation(tiny_fit, pretrained):
    finished = tiny_fit(
        "quickstart/pretrain.yaml",
        pretrained.parent,
        *("--run", "base", "--model.gpt.n_layer", "1"),
    )
    assert finished.code == 2
    assert "model.gpt.n_layer=1, but this run was made with 2" in finished.err


def test_fine_tuning_takes_sizes_and_tokenizer_from_the_checkpoint(pretrained, finetuned):
    base, chat = (checkpoints(run)[-1] for run in (pretrained, finetuned))
    old, new = (json.loads((folder / "bundle.json").read_text()) for folder in (base, chat))
    assert new["model"] == {**old["model"], "max_seq_len": 256}
    assert new["chat"]
    assert not old["chat"]
    assert (base / "tokenizer.model").read_bytes() == (chat / "tokenizer.model").read_bytes()
    weights = [load_file(folder / "model.safetensors") for folder in (base, chat)]
    moved = (weights[0]["embed.weight"] - weights[1]["embed.weight"]).abs().max()
    assert 0 < moved < 0.2  # it started from the old weights and learned


def test_sizes_that_do_not_fit_the_checkpoint_are_refused(tiny_fit, pretrained, tmp_path):
    arguments = [f"--model.init_from={pretrained}", "--model.gpt.d_model=64"]
    finished = tiny_fit("quickstart/finetune.yaml", tmp_path, *arguments, chat=True)
    assert finished.code == 2
    assert "the weights do not fit the model" in finished.err
    assert "embed.weight has shape" in finished.err


def test_predict_needs_nothing_but_the_checkpoint(cli, finetuned, tmp_path):
    answers = tmp_path / "answers.jsonl"
    finished = cli(
        "predict",
        *("--ckpt_path", finetuned, "--data.prompts", '["Where does Anna live?", "Hi"]'),
        *("--sampling.max_new_tokens", "7", "--output", answers),
    )
    assert finished.code == 0, finished.err
    assert "Where does Anna live?" in finished.out
    assert "max_new_tokens reached" in finished.out
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [record["prompt"] for record in records] == ["Where does Anna live?", "Hi"]
    assert all(set(record) == {"prompt", "text", "finish_reason"} for record in records)


def test_predict_counts_right_answers_of_a_quiz(cli, finetuned, tmp_path):
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text('{"prompt": "Who?", "response": "Nobody.", "kind": "who"}\n')
    finished = cli("predict", "--ckpt_path", finetuned, "--data.file", quiz)
    assert finished.code == 0, finished.err
    assert "who" in finished.out
    assert "0/1" in finished.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.prompts", '["x"]'], "give --ckpt_path"),
        (["--ckpt_path", "nowhere/at-all", "--data.prompts", '["x"]'], "no checkpoint"),
        (["--ckpt_path", "RUN"], "predict needs prompts"),
    ],
)
def test_predict_without_checkpoint_or_prompts_is_an_error(cli, finetuned, arguments, words):
    arguments = [str(finetuned) if argument == "RUN" else argument for argument in arguments]
    finished = cli("predict", *arguments)
    assert finished.code == 2
    assert words in finished.err
    assert len(finished.err.splitlines()) <= 3


def test_a_masked_model_fills_a_mask(cli, tiny_fit, tmp_path):
    fitted = tiny_fit("bert-tiny/pretrain.yaml", tmp_path, "--run", "bert")
    assert fitted.code == 0, fitted.err
    out = tmp_path / "out.jsonl"
    finished = cli(
        "predict",
        *("--ckpt_path", tmp_path / "bert", "--output", out),
        *("--data.prompts", '["The capital of [MASK] is [MASK]."]'),
    )
    assert finished.code == 0, finished.err
    (record,) = (json.loads(line) for line in out.read_text().splitlines())
    assert len(record["candidates"]) == 2
    for mask in record["candidates"]:
        shares = [share for _, share in mask]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 1


@pytest.mark.parametrize("run", ["pretrained", "finetuned"])
def test_validate_needs_nothing_but_a_checkpoint_and_finds_the_logged_loss(cli, run, request):
    folder = request.getfixturevalue(run)
    finished = cli("validate", "--ckpt_path", folder)
    assert finished.code == 0, finished.err
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("val/loss")
    last = [row.split(",")[column] for row in rows if row.split(",")[column]][-1]
    found = re.search(r"val/loss\W+([\d.]+)", finished.out)
    assert float(found[1]) == pytest.approx(float(last), rel=1e-6)
    step = int(checkpoints(folder)[-1].name.removeprefix("step-"))
    assert f"is what the run logged at step {step}" in finished.err


def test_validate_takes_other_limits_and_says_that_the_loss_differs(cli, pretrained):
    finished = cli("validate", "--ckpt_path", pretrained, "--trainer.limit_val_batches", "1")
    assert finished.code == 0, finished.err
    assert "but the run logged" in finished.err


def test_validate_asks_which_run_is_meant(cli):
    finished = cli("validate", "--ckpt_path", "last")
    assert finished.code == 2
    assert "of which run?" in finished.err
