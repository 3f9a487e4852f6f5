import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_llm.checkpoint.find import checkpoints

ROOT = Path(__file__).parents[2]
RECIPE = "configs/recipes/quickstart/pretrain.yaml"
TINY = [RECIPE, "tests/configs/tiny.yaml", "tests/configs/tiny-text.yaml"]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def refusal(cli, tmp_path, cache):
    """What a command says when it refuses; checks that it is short and exits with 2."""

    def refuse(*arguments: str, command: str = "fit", files: tuple | list = (RECIPE,)) -> str:
        given = [word for file in files for word in ("-c", file)]
        own = [f"--runs_dir={tmp_path}"] if command in ("fit", "validate") else []
        finished = cli(command, *given, *own, *arguments)
        assert finished.code == 2, finished.out
        before, error, said = finished.err.partition("error: ")
        assert re.fullmatch(r"(.*: verified .* in .* s\n)?", before)  # what has been done by then
        assert 1 <= len(said.splitlines()) <= 3
        return error + said

    return refuse


# -- help --------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    code = "import sys; from lit_llm.cli import main; main(['--help']); print(*sys.modules)"
    started = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], cwd=ROOT)
    empty = time.perf_counter() - started
    assert "predict" in out.stdout
    modules = set(out.stdout.splitlines()[-1].split())
    assert not modules & {"torch", "lightning", "jsonargparse", "numpy", "yaml"}
    # 0.06 s on an idle core; a busy machine starts any Python slowly
    assert seconds < 0.2 + 3 * empty


def test_an_unknown_command_is_named_with_its_nearest_neighbour(refusal):
    assert "no command 'pedict'; did you mean predict?" in refusal(command="pedict", files=())


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--model.gpt.n_layers 3", "n_layers: no such key; did you mean model.gpt.n_layer?"),
        ("--trainer.max_step=3", "max_step: no such key; did you mean trainer.max_steps?"),
        ("--data.corpus.peopel 8", "did you mean data.corpus.people?"),
        ("--data.init_args.tokenizer.init_args.vocab 8", "did you mean data.tokenizer.vocab_size?"),
        ("--model.optimizer.lrr 8", "did you mean model.optimizer.lr?"),
        ("--xyz 8", "--xyz: no such key; --help lists all keys"),
        ("--data.seq_len", "--data.seq_len: needs a value"),
        ("--model.gpt.vocab_size 8", "model.gpt.vocab_size follows from the tokenizer"),
        ("--model.gpt.n_layer three", "--model.gpt.n_layer: expected int, got 'three'"),
        ("--data.val_split tail", "one of 'documents', 'tails', got 'tail'; did you mean tails?"),
        ("--trainer.precision bf61", "'bf16-mixed'"),
        ("--data.corpus lit_llm.data.corpus.Vilage", "did you mean lit_llm.data.corpus.Village?"),
        ("--model.optimizer torch.optim.AdanW", "did you mean torch.optim.AdamW?"),
        ("--model.gpt.attention lit_llm.model.attention.Attentoin", "did you mean lit_llm.model"),
        ("--data.corpus nowhere.Village", "--data.corpus: class_path 'nowhere.Village': No module"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_explained(refusal, arguments, words):
    assert words in refusal(*arguments.split())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {gpt: {n_layers: 3}}", "n_layers: no such key; did you mean model.gpt.n_layer?"),
        ("modle: {gpt: {n_layer: 3}}", "modle.gpt.n_layer: no such key; did you mean model.gpt."),
        ("data.init_args: {corpus: {init_args: {peopel: 8}}}", "did you mean data.corpus.people?"),
        ("data: {seq_length: 8}", "data.seq_length: no such key; did you mean data.seq_len?"),
        ("checkpoint: {every_steps: 3}", "did you mean checkpoint.every_n_steps?"),
        ("model: {gpt: {n_layer: three}}", "model.gpt.n_layer: expected int, got 'three'"),
        ("data.init_args.corpus.class_path: lit_llm.data.corpus.Vilage", "data.corpus: class_path"),
        ("model: {seed: 8}", "model.seed follows from seed_everything: remove it"),
        ("data: {tokenizer_from: x}", "tokenizer_from follows from model.init_from: remove it"),
        ("model: 8", "model holds keys, got 8"),
        ("data: 8", "data: expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_explained_with_its_name(refusal, tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    # a file that comes later and says nothing about it is not blamed
    said = refusal(files=[RECIPE, tmp_path / "mine.yaml", "configs/trainer/cpu.yaml"])
    assert "mine.yaml: " in said
    assert words in said


def test_a_missing_file_is_named_with_its_nearest_neighbour(refusal):
    said = refusal(files=["configs/recipes/quickstart/pretrian.yaml"])
    assert "did you mean configs/recipes/quickstart/pretrain.yaml?" in said


def test_fit_without_anything_says_where_to_begin(refusal):
    assert "-c configs/recipes/quickstart/pretrain.yaml" in refusal(files=())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data.prompt x", "did you mean data.prompts?"),
        ("--sampling.temprature 1", "did you mean sampling.temperature?"),
        ("--data.prompts x", "--data.prompts: expected list or null, got 'x'"),
        ("--sampling.temperature -1", "temperature=-1.0"),
    ],
)
def test_a_wrong_flag_of_predict_is_explained(refusal, arguments, words):
    assert words in refusal(*arguments.split(), command="predict", files=())


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data.corpus.people 3", "people=3: a village has an even number"),
        ("--model.gpt.d_model 33", "d_model=33 does not split into n_head=2"),
        ("--model.schedule.warmup_steps -1", "warmup_steps=-1 is negative"),
        ("--trainer.strategy dpp", "--trainer.strategy: there is no 'dpp'; did you mean ddp?"),
        ("--trainer.accelerator tpu", "accelerator=tpu"),
        ("--trainer.accumulate_grad_batches 3", "is not yours to set"),
        ("--trainer.max_steps -1", "give --trainer.max_steps N"),
    ],
)
def test_what_a_part_refuses_arrives_as_it_said_it(refusal, cache, arguments, words):
    assert words in refusal(*arguments.split(), f"--data.cache_dir={cache}", files=TINY)


@pytest.mark.parametrize("library", [np, torch])
def test_an_error_from_the_depths_of_a_library_keeps_its_traceback(
    cli, monkeypatch, tmp_path, library
):
    def check(warmup_steps, floor):  # stands for a mistake of ours in the schedule's __init__
        if library is np:
            return np.zeros(3).reshape(2, 2)
        zero, negative = torch.tensor(0.0), torch.tensor(-1.0)
        # torch.compile turns the check off for the rest of the process
        return torch.distributions.Normal(zero, negative, validate_args=True)

    monkeypatch.setattr("lit_llm.optim.schedule._check", check)
    with pytest.raises(ValueError, match=r"cannot reshape|to satisfy the constraint"):
        cli("fit", "-c", RECIPE, f"--runs_dir={tmp_path}")


# -- the checkpoint and the user ---------------------------------------------------------------


def test_validate_takes_what_the_user_typed_and_not_the_checkpoints(refusal, pretrained, cache):
    # the checkpoint has two layers: Lightning's own CLI would take these over the user's one
    said = refusal(
        *("--ckpt_path", pretrained, "--model.gpt.n_layer", "1", f"--data.cache_dir={cache}"),
        command="validate",
        files=TINY,
    )
    assert "the weights do not fit the model: blocks.1." in said


def test_processes_that_do_not_know_of_each_other_are_refused(refusal, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    said = refusal(files=TINY)
    assert "2 processes were started, but the trainer knows of one" in said


def test_a_continued_run_takes_learning_rate_and_decay_from_the_command_line(
    tiny_fit, pretrained, tmp_path
):
    was = json.loads((checkpoints(pretrained)[-1] / "bundle.json").read_text())["config"]["model"]
    old = was["optimizer"]["init_args"]
    # another folder: the fixture's run stays as it is
    finished = tiny_fit(
        RECIPE.removeprefix("configs/recipes/"),
        tmp_path,
        *("--run", "more", "--ckpt_path", pretrained, "--trainer.max_steps", "7"),
        *("--model.optimizer.lr", "0.5", "--model.optimizer.weight_decay", "0.25"),
        *("--model.schedule", "null"),
    )
    assert finished.code == 0, finished.err
    assert f"model.optimizer.init_args.lr: {old['lr']} -> 0.5 from here on" in finished.err
    assert f"resumed with matrix: weight_decay {old['weight_decay']} -> 0.25" in finished.err
    (folder,) = checkpoints(tmp_path / "more")
    state = torch.load(folder / "training.ckpt", weights_only=True)
    groups = {group["kind"]: group for group in state["optimizer_states"][0]["param_groups"]}
    assert groups["matrix"]["lr"] == 0.5
    assert groups["matrix"]["weight_decay"] == 0.25
    # a group's own setting is not touched by it
    assert groups["embedding"]["lr"] == was["groups"]["embedding"]["lr"] != 0.5
    assert groups["vector"]["weight_decay"] == 0
    config = json.loads((folder / "bundle.json").read_text())["config"]
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.5


def test_half_precision_on_a_cpu_is_refused_and_not_replaced(refusal):
    message = refusal("--trainer.precision=16-mixed", "--trainer.limit_val_batches=0", files=TINY)
    assert "trainer.precision=16-mixed needs a GPU" in message
    assert "bf16-mixed" in message


# -- Ctrl-C ------------------------------------------------------------------------------------


def exits_as_lightning_does(*_):
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def interrupts(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("run", [interrupts, exits_as_lightning_does])
def test_ctrl_c_before_training_begins_is_one_line_and_130(cli, monkeypatch, run):
    monkeypatch.setattr("lit_llm.commands.fit.run", run)
    finished = cli("fit")
    assert finished.code == 130
    assert finished.err == "interrupted\n"


def test_an_exit_that_ctrl_c_has_not_caused_keeps_its_code(cli, monkeypatch):
    monkeypatch.setattr("lit_llm.commands.fit.run", lambda *_: sys.exit(7))
    assert cli("fit").code == 7
