"""A LoRA run from the command line, and everything that is done with what it leaves."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lit_llm.checkpoint.base import fingerprint
from lit_llm.checkpoint.bundle import load_model, read_meta
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.merge import load_apart
from lit_llm.checkpoint.reader import Reader
from lit_llm.model.lora import is_adapter
from lit_llm.training.module import LitLLM

ROOT = Path(__file__).parents[1]
FINETUNE = "quickstart/finetune.yaml"
OVERLAY = ("-c", ROOT / "configs/overlays/lora.yaml", "--model.lora.dropout=0.2")
OVERLAY += ("--model.lora.whole=[]",)
EVERY_TWO = ("--checkpoint.every_n_steps=2", "--checkpoint.keep_last=null")
LAST = "step-00000004"


@pytest.fixture(scope="module")
def runs(tiny_fit, pretrained, tmp_path_factory) -> Path:
    """A tree of runs: `base`, and `lora` over it, saved at steps 2 and 4."""
    runs = tmp_path_factory.mktemp("lora")
    shutil.copytree(pretrained, runs / "base")
    fit(tiny_fit, runs, "--run=lora", *EVERY_TWO)
    return runs


def fit(tiny_fit, runs: Path, *arguments):
    init_from = f"--model.init_from={runs / 'base'}"
    finished = tiny_fit(FINETUNE, runs, *OVERLAY, init_from, *arguments, chat=True)
    assert finished.code == 0, finished.err
    return finished


def weights(run: Path, step: str = LAST) -> dict[str, torch.Tensor]:
    return load_file(run / step / "adapters.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_holds_adapters_and_their_state_alone(runs):
    held = weights(runs / "lora")
    assert len(held) == 2 * 2 * 7
    assert all(map(is_adapter, held))
    checkpoint = FolderCheckpointIO().load_checkpoint(runs / "lora" / LAST)
    assert {name.removeprefix("gpt.") for name in checkpoint["state_dict"]} == held.keys()
    (optimizer,) = checkpoint["optimizer_states"]
    assert len(optimizer["state"]) == len(held)
    base = (runs / "base").glob("step-*/model.safetensors")
    assert read_meta(runs / "lora" / LAST)["base"]["path"] == (
        f"../../base/{max(path.parent.name for path in base)}"
    )


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tiny_fit, runs):
    start = runs / "lora/step-00000002"
    fit(tiny_fit, runs, "--run=resumed", f"--ckpt_path={start}", *EVERY_TWO)
    found, expected = (
        FolderCheckpointIO().load_checkpoint(runs / run / LAST) for run in ("resumed", "lora")
    )
    assert same(found["state_dict"], expected["state_dict"])
    assert not same(found["state_dict"], FolderCheckpointIO().load_checkpoint(start)["state_dict"])
    states = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (found, expected)]
    assert all(same(states[0][i], states[1][i]) for i in states[1])


def test_parts_that_learn_as_a_whole_are_saved_and_go_on_too(tiny_fit, cli, runs, tmp_path):
    whole = ("--model.lora.whole=[embed,lm_head]", *EVERY_TWO)
    fit(tiny_fit, runs, "--run=whole", *whole)
    fit(tiny_fit, runs, "--run=whole-on", f"--ckpt_path={runs / 'whole/step-00000002'}", *whole)
    held = weights(runs / "whole")
    assert "embed.weight" in held
    assert same(weights(runs / "whole-on"), held)
    finished = cli("validate", "--ckpt_path", runs / "whole")
    assert "is what the run logged at step 4" in finished.err
    to = ["--to", "checkpoint", "--out", tmp_path / "out"]
    assert cli("export", "--ckpt_path", runs / "whole", *to).code == 0


def test_a_step_cut_into_micro_batches_is_the_same_step(tiny_fit, runs):
    fit(
        tiny_fit,
        runs,
        "--run=cut",
        "--data.micro_batch_size=1",
        "--model.lora.dropout=0",
        *EVERY_TWO,
    )
    fit(tiny_fit, runs, "--run=at-once", "--model.lora.dropout=0", *EVERY_TWO)
    cut, at_once = (weights(runs / run) for run in ("cut", "at-once"))
    for name, weight in at_once.items():
        torch.testing.assert_close(cut[name], weight, rtol=1e-3, atol=1e-5)


def test_validate_finds_the_loss_that_the_run_logged(cli, runs):
    finished = cli("validate", "--ckpt_path", runs / "lora")
    assert finished.code == 0, finished.err
    assert "is what the run logged at step 4" in finished.err


def test_predict_answers_and_samples_are_written(cli, runs):
    arguments = ["--data.prompts", '["Hello"]', "--sampling.max_new_tokens=3"]
    finished = cli("predict", "--ckpt_path", runs / "lora", *arguments)
    assert finished.code == 0, finished.err
    rows = (runs / "lora/samples.jsonl").read_text().splitlines()
    assert {json.loads(row)["step"] for row in rows} == {2, 4}


@torch.no_grad()
def test_a_merged_export_computes_the_same_and_is_a_start(tiny_fit, cli, runs, tmp_path):
    out = tmp_path / "merged"
    finished = cli("export", "--ckpt_path", runs / "lora", "--to", "checkpoint", "--out", out)
    assert finished.code == 0, finished.err
    tokens_BT = torch.arange(20)[None]
    found, expected = load_model(out)[0](tokens_BT), load_apart(runs / "lora" / LAST)(tokens_BT)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    arguments = ["--data.prompts", '["Hello"]', "--sampling.max_new_tokens=3"]
    assert cli("predict", "--ckpt_path", out, *arguments).code == 0
    # a run over the merged weights and one over the adapters begin with the same loss
    starts = []
    for name, init_from in (("over-merged", out), ("over-adapters", runs / "lora")):
        finished = tiny_fit(
            FINETUNE,
            runs,
            f"--run={name}",
            f"--model.init_from={init_from}",
            "--trainer.max_steps=2",
            "--trainer.log_every_n_steps=1",
            chat=True,
        )
        assert finished.code == 0, finished.err
        with (runs / name / "metrics.csv").open() as file:
            starts.append(float(next(csv.DictReader(file))["train/loss"]))
    assert starts[0] == starts[1]


def test_an_export_to_peft_says_where_the_base_is(cli, runs, tmp_path):
    to = ["--to", "peft", "--out", tmp_path / "peft", "--base", "someone/base"]
    finished = cli("export", "--ckpt_path", runs / "lora", *to)
    assert finished.code == 0, finished.err
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/base"
    to = ["--to", "checkpoint", "--out", tmp_path / "no", "--base", "someone/base"]
    refused = cli("export", "--ckpt_path", runs / "lora", *to)
    assert refused.code == 2
    assert "goes with --to peft" in refused.err


def test_a_tree_that_was_moved_goes_on(tiny_fit, runs, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(runs / "base", moved / "base")
    shutil.copytree(runs / "lora", moved / "lora")
    shutil.rmtree(moved / "lora" / LAST)
    aside = runs.with_name("aside")
    (runs / "base").rename(aside)
    try:
        fit(tiny_fit, moved, "--run=lora", "--ckpt_path=last", *EVERY_TWO)
    finally:
        aside.rename(runs / "base")
    assert same(weights(moved / "lora"), weights(runs / "lora"))


def test_a_run_goes_on_over_its_own_base_even_where_that_has_gone_on_too(tiny_fit, runs, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(runs / "base", tree / "base")
    shutil.copytree(runs / "lora", tree / "lora")
    shutil.rmtree(tree / "lora" / LAST)
    newer = max((tree / "base").glob("step-*"))
    shutil.copytree(newer, tree / "base/step-00000099")
    finished = fit(tiny_fit, tree, "--run=lora", "--ckpt_path=last", *EVERY_TWO)
    assert same(weights(tree / "lora"), weights(runs / "lora"))
    assert "has no effect" in finished.out + finished.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.lora.whole=[head]"], "lora.whole"),
        (["--model.lora.rank=0"], "lora.rank=0 is no size: give 1 or more"),
        (["--model.lora.targets=[q_proj,query]"], "no block has a linear layer 'query': use"),
        (["--model.lora.base_dtype=bfloat16"], "lora.base_dtype=bfloat16 needs bf16-mixed"),
        (
            ["--ckpt_path=last", "--run=lora", "--model.lora.alpha=3", "--trainer.max_steps=9"],
            "model.lora.alpha=3.0, but this run was made with 16.0",
        ),
        (
            ["--ckpt_path=last", "--run=lora", "--model.lora=null", "--trainer.max_steps=9"],
            "but this run was made with",
        ),
    ],
)
def test_what_cannot_be_is_said_in_three_lines_at_most(tiny_fit, runs, arguments, said):
    init_from = f"--model.init_from={runs / 'base'}"
    finished = tiny_fit(FINETUNE, runs, *OVERLAY, init_from, "--run=refused", *arguments, chat=True)
    assert finished.code == 2
    assert said in finished.err
    errors = finished.err[finished.err.index("error: ") :]
    assert len(errors.splitlines()) <= 3
    assert not list(runs.glob("refused/step-*"))


def test_adapters_of_random_weights_are_refused(tiny_fit, tmp_path):
    finished = tiny_fit("quickstart/pretrain.yaml", tmp_path, *OVERLAY)
    assert finished.code == 2
    line = "error: model.lora adapts trained weights, but model.init_from is null: give the "
    assert finished.err.startswith(line)
    assert len(finished.err.splitlines()) == 1


def test_a_missing_base_is_a_line_in_every_command(cli, runs, tmp_path):
    shutil.copytree(runs / "lora", tmp_path / "a/lora")
    aside = runs.with_name("aside")
    (runs / "base").rename(aside)
    try:
        finished = cli("predict", "--ckpt_path", tmp_path / "a/lora", "--data.prompts", '["Hi"]')
        exported = cli(
            *("export", "--ckpt_path", tmp_path / "a/lora", "--to", "checkpoint"),
            *("--out", tmp_path / "out"),
        )
        validated = cli("validate", "--ckpt_path", tmp_path / "a/lora")
    finally:
        aside.rename(runs / "base")
    for command in (finished, exported, validated):
        assert command.code == 2
        assert "holds adapters, and their base is neither at" in command.err
        assert len(command.err[command.err.index("error: ") :].splitlines()) == 1


@pytest.mark.slow
def test_adapters_that_were_saved_in_shards_go_on_in_one_process_and_the_other_way_round(
    tiny_fit, runs, cache
):
    still = ("--model.lora.dropout=0", "--data.global_batch_size=8", "--data.micro_batch_size=1")
    fit(tiny_fit, runs, "--run=one", *EVERY_TWO, *still)
    files = (f"recipes/{FINETUNE}", "trainer/fsdp.yaml", "precision/32-true.yaml")
    common = ["fit", *(part for file in files for part in ("-c", str(ROOT / "configs" / file)))]
    common += ["-c", str(ROOT / "tests/configs/tiny-chat.yaml"), *map(str, OVERLAY)]
    common += [f"--data.cache_dir={cache}", f"--runs_dir={runs}", *EVERY_TWO, *still]
    common += [f"--model.init_from={runs / 'base'}", "--trainer.accelerator=cpu"]
    from_one = f"--ckpt_path={runs / 'one/step-00000002'}"
    launch([*common, "--run=two", "then", *common, "--run=two-from-one", from_one])
    assert (runs / "two" / LAST / "shards.json").is_file()
    from_two = f"--ckpt_path={runs / 'two/step-00000002'}"
    fit(tiny_fit, runs, "--run=one-from-two", from_two, *EVERY_TWO, *still)
    expected = Reader(runs / "one" / LAST, apart=True)
    for run in ("two", "two-from-one", "one-from-two"):
        found = Reader(runs / run / LAST, apart=True)
        assert set(found.names) == set(expected.names)
        for name in expected.names:
            torch.testing.assert_close(found.read(name), expected.read(name), rtol=0, atol=1e-6)


def launch(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--", str(ROOT / "tests/training/resume_matrix.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, env=environment
    )
    assert finished.returncode == 0, finished.stderr[-9000:]


@pytest.mark.interop
@torch.no_grad()
def test_an_export_to_hf_computes_what_the_adapters_apart_compute(cli, runs, tmp_path):
    from transformers import AutoModelForCausalLM

    to = ["--to", "hf", "--out", tmp_path / "hf"]
    finished = cli("export", "--ckpt_path", runs / "lora", *to)
    assert finished.code == 0, finished.err
    tokens_BT = torch.arange(20)[None]
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")(tokens_BT).logits
    expected = load_apart(runs / "lora" / LAST)(tokens_BT)
    off = (found[..., : expected.size(-1)] - expected).abs().max()
    assert float(off) <= 1e-5 * float(expected.abs().max())


def test_merge_makes_a_model_of_adapters_and_base(cli, runs, tmp_path):
    finished = cli("merge", "--ckpt_path", runs / "lora", "--out", tmp_path / "merged")
    assert finished.code == 0, finished.err
    assert str(tmp_path / "merged") in finished.out
    apart, merged = load_apart(runs / "lora" / LAST), load_model(tmp_path / "merged")[0]
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        expected = apart(tokens)
        assert (merged(tokens) - expected).abs().max() <= 1e-5 * expected.abs().max()
    refused = cli("merge", "--ckpt_path", tmp_path / "merged", "--out", tmp_path / "again")
    assert refused.code == 2
    assert "has no adapters to merge" in refused.err


def test_a_run_remembers_the_weights_that_it_took_whatever_becomes_of_their_place(
    tiny_fit, pretrained, tmp_path, monkeypatch
):
    shutil.copytree(pretrained, tmp_path / "base")
    step = max((tmp_path / "base").glob("step-*"))
    expected = fingerprint(step)
    write = LitLLM.on_save_checkpoint

    def save_after_the_base_is_gone(self, checkpoint):
        shutil.rmtree(tmp_path / "base", ignore_errors=True)
        write(self, checkpoint)

    monkeypatch.setattr(LitLLM, "on_save_checkpoint", save_after_the_base_is_gone)
    init_from = f"--model.init_from={tmp_path / 'base'}"
    finished = tiny_fit(FINETUNE, tmp_path, *OVERLAY, init_from, "--run=lora", chat=True)
    assert finished.code == 0, finished.err
    assert read_meta(tmp_path / "lora" / LAST)["base"]["sha256"] == expected
    with pytest.raises(CheckpointError, match="holds adapters, and their base is neither at"):
        load_model(tmp_path / "lora" / LAST)


def test_the_run_that_holds_the_base_is_not_overwritten(tiny_fit, pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "base")
    init_from = f"--model.init_from={tmp_path / 'base'}"
    arguments = ("--run=base", "--overwrite=true")
    finished = tiny_fit(FINETUNE, tmp_path, *OVERLAY, init_from, *arguments, chat=True)
    assert finished.code == 2
    assert "which the adapters of this run belong to" in finished.err
    assert list((tmp_path / "base").glob("step-*/model.safetensors"))


def test_a_half_copied_base_is_passed_over(runs, tmp_path):
    shutil.copytree(runs / "lora", tmp_path / "runs/lora")
    meta = read_meta(tmp_path / "runs/lora" / LAST)
    half = tmp_path / "runs/base" / Path(meta["base"]["absolute"]).name
    half.mkdir(parents=True)
    assert load_model(tmp_path / "runs/lora" / LAST)[0].config.n_layer > 0  # by `absolute`
