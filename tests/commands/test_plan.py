import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_llm.commands.compose import Configuration
from lit_llm.commands.plan_keys import GROUPS, parser_of
from lit_llm.commands.signatures import outline

ROOT = Path(__file__).parents[2]
RECIPE = "configs/recipes/gpt-124m/pretrain.yaml"
# Over it: divisible by eight devices, and traced in no time.
SMALL = ("--model.gpt.n_layer=2", "--model.gpt.d_model=64", "--model.gpt.n_head=8",
         "--model.gpt.d_ff=128", "--data.seq_len=64", "--data.micro_batch_size=8")  # fmt: skip


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def plan(cli):
    """The plan of a recipe as JSON gives it."""

    def plan(*arguments: str, recipe: str = RECIPE) -> dict:
        finished = cli("plan", "-c", recipe, "--json", *arguments)
        assert finished.code == 0, finished.err
        return json.loads(finished.out)

    return plan


@pytest.fixture
def refusal(cli):
    def refuse(*arguments: str) -> str:
        finished = cli("plan", "-c", RECIPE, *arguments)
        assert finished.code == 2, finished.out
        assert finished.err.startswith("error: ")
        assert len(finished.err.splitlines()) <= 3
        return finished.err

    return refuse


def seconds_of(code: str, *arguments: str) -> tuple[float, subprocess.CompletedProcess]:
    """Of the processor, for a test may have to share it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", code, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, finished


def test_a_plan_takes_little_more_than_importing_torch_and_no_lightning_data_or_network():
    code = (
        "import sys; from lit_llm.cli import main; main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr)"
    )
    importing, _ = seconds_of("import torch")
    spent, finished = seconds_of(code, "plan", "-c", RECIPE, "--gpu", "H100-80GB")
    assert "123,587,328 parameters" in finished.stdout
    assert spent < 3.5 * importing
    modules = set(finished.stderr.splitlines()[-1].split())
    assert not modules & {"lightning", "torchmetrics", "datasets", "torch._dynamo", "matplotlib"}


def test_the_text_says_all_that_is_asked_of_a_plan(cli):
    finished = cli("plan", "-c", RECIPE, "--gpu", "H100-80GB", "--devices", "8", "--mfu", "0.5")
    for words in (
        "FLOPs per token",
        "8 x H100-80GB, ddp, bf16-mixed",
        "weights",
        "gathered, on its way",
        "92% of 79.65 GiB",
        "it fits",
        "largest micro-batch that fits  64",
        "KV cache in generation         36.0 KiB per token, 36.0 MiB per sequence",
        "if MFU is 50%",
        "-c configs/trainer/ddp.yaml: each device holds all",
    ):
        assert words in finished.out


def test_devices_and_nodes_come_from_flags_or_from_the_configuration(plan):
    flags = plan("--gpu=H100-80GB", "--devices=4", "--nodes=2", *SMALL)
    files = plan(
        *SMALL,
        *("--gpu", "H100-80GB", "-c", "configs/trainer/ddp.yaml"),
        *("--trainer.devices=4", "--trainer.num_nodes=2"),
    )
    assert flags == files
    assert (flags["devices"], flags["strategy"], flags["accumulate"]) == (8, "ddp", 8)


@pytest.mark.parametrize(
    ("trainer", "strategy"),
    [
        ("fsdp", "sharded: shard 8"),
        ("tp", "sharded: tensor 4"),
        ("fsdp-tp", "sharded: shard 4 x tensor 2"),
        ("hsdp", "sharded: replicate 2 x shard 4"),
        ("multi-node", "sharded: shard 8"),
    ],
)
def test_every_sharding_trainer_file_is_understood(plan, trainer, strategy):
    nodes = ("--devices=4", "--nodes=2") if trainer in ("hsdp", "multi-node") else ("--devices=8",)
    nodes = ("--devices=4",) if trainer == "tp" else nodes
    found = plan(
        *("-c", f"configs/trainer/{trainer}.yaml", "--gpu", "H100-80GB", *nodes, *SMALL),
        "--model.compile=false",
    )
    assert found["strategy"] == strategy
    alone = plan("--gpu", "H100-80GB", *SMALL)
    assert found["memory"]["optimizer"] < alone["memory"]["optimizer"] / 2


def test_what_tensor_parallelism_refuses_is_not_planned(refusal, plan):
    asked = ("-c", "configs/trainer/tp.yaml", "--gpu=H100-80GB", "--devices=4", *SMALL)
    assert "model.compile=true with tensor_parallel=4" in refusal(*asked)
    assert "dropout=0.1 with" in refusal(*asked, "--model.gpt.dropout=0.1", "--model.compile=false")


def test_the_vocabulary_is_the_tokenizers_or_given(plan, refusal):
    small = plan("--gpu=L4-24GB", "--data.tokenizer.vocab_size=1000", *SMALL)
    given = plan("--gpu=L4-24GB", "--vocab_size=1000", *SMALL)
    assert small["parameters"] == given["parameters"] < 1e6
    assert "give data.tokenizer, or --vocab_size N" in refusal("--data.tokenizer=null")


def test_a_finetuning_recipe_takes_network_and_vocabulary_from_its_checkpoint(pretrained, plan):
    found = plan(
        f"--model.init_from={pretrained}", recipe="configs/recipes/quickstart/finetune.yaml"
    )
    weights = 4 * found["parameters"]
    assert found["memory"]["weights"] == weights
    assert found["parameters"] < 200_000  # the fixture's network, and not the quickstart's


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--gpu H100", "--gpu H100: no such device; did you mean H100-80GB?"),
        ("--gpu", "--gpu: needs a value"),
        ("--devices none", "--devices: expected int, got 'none'"),
        ("--mfu 40", "--mfu=40.0 is a share of the peak"),
        ("--model.gpt.n_layers 3", "n_layers: no such key; did you mean model.gpt.n_layer?"),
        ("--trainer.max_step=3", "max_step: no such key; did you mean trainer.max_steps?"),
        ("--data.seq_length 3", "no such key; did you mean data.init_args.seq_len?"),
        ("--data.corpus.nme x", "did you mean data.init_args.corpus.name?"),
        ("--model.optimizer.lrr 8", "did you mean model.optimizer.lr?"),
        ("--xyz 8", "--xyz: no such key"),
        ("--model.gpt.vocab_size 8", "model.gpt.vocab_size follows from the tokenizer"),
        ("--model.gpt.n_layer three", "--model.gpt.n_layer: expected int, got 'three'"),
        ("--model.gpt.n_head 7", "d_model=768 does not split into n_head=7 heads"),
        ("--trainer.precision bf61", "there is no 'bf61'"),
        ("--trainer.strategy fsdp", "plan knows ddp and"),
        ("-c configs/trainer/fsdp.yaml --trainer.strategy.tensor_paralel 2", "tensor_parallel?"),
        ("--gpu L4-24GB --devices 3", "is no multiple of the 96 rows that 3 devices take"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_explained(refusal, arguments, words):
    assert words in refusal(*arguments.split())


def test_a_typo_in_a_file_is_blamed_on_the_file(refusal, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"model": {"gpt": {"n_layers": 3}}}))
    assert "mine.yaml: model.gpt.n_layers: no such key" in refusal(
        "-c", str(tmp_path / "mine.yaml")
    )


def test_plan_takes_the_keys_that_fit_takes(cli):
    """Of the two parsers one imports Lightning, so they are made by different code."""
    shown = yaml.safe_load(cli("fit", "-c", RECIPE, "--print_config").out)
    ours = parser_of(Configuration([RECIPE])).get_defaults().as_dict()
    assert set(shown) <= set(ours)
    for name in GROUPS.keys() & shown.keys():
        assert set(shown[name]) <= set(ours[name])


def test_an_outline_has_the_arguments_of_the_class_and_nothing_of_its_imports():
    before = set(sys.modules)
    trainer = outline("lightning.pytorch.trainer.trainer.Trainer")(max_steps=3)
    assert trainer.arguments["max_steps"] == 3
    assert trainer.arguments["accelerator"] == "auto"
    assert not {name for name in set(sys.modules) - before if not name.startswith("outline_of")}
    with pytest.raises(ValueError, match="has no class Trainr"):
        outline("lightning.pytorch.trainer.trainer.Trainr")
    with pytest.raises(ValueError, match="there is no module"):
        outline("lit_llm.nowhere.Class")


def test_a_lora_run_is_planned_with_what_learns(plan, refusal, pretrained):
    recipe = "configs/recipes/quickstart/finetune.yaml"
    start = f"--model.init_from={pretrained}"
    whole = plan(start, recipe=recipe)
    lora = plan(start, "--model.lora={rank: 4, targets: [q_proj]}", recipe=recipe)
    adapters = 2 * 4 * (32 + 32)  # of the two layers of tests/configs/tiny.yaml
    assert lora["trained"] == adapters
    assert lora["parameters"] == whole["parameters"] + adapters == whole["trained"] + adapters
    assert lora["memory"]["gradients"] <= 4 * adapters
    assert lora["memory"]["optimizer"] < whole["memory"]["optimizer"] / 20
    assert "model.init_from is null" in refusal("--model.lora={rank: 4}")
