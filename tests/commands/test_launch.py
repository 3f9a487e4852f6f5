import os
from pathlib import Path

import pytest
import torch
import yaml

from lit_llm.commands.compose import Configuration
from lit_llm.commands.launch import Launcher, launcher, settle

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs/recipes/quickstart/pretrain.yaml"
TINY = [RECIPE, ROOT / "tests/configs/tiny.yaml", ROOT / "tests/configs/tiny-text.yaml"]
TRAINERS = {path.stem: path for path in (ROOT / "configs/trainer").glob("*.yaml")}
FSDP_BF16 = ROOT / "configs/precision/fsdp-bf16.yaml"
TORCHRUN_2 = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}
SLURM = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NAME": "train"}


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """No launcher but the one that a test sets, and no GPU."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def env(monkeypatch):
    return lambda values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.fixture
def settled():
    """The trainer's values, the flags and the notes after `settle`."""

    def settled(*flags: str, files=(TRAINERS["ddp"],), **trainer):
        configuration = Configuration(files)
        configuration.values.setdefault("trainer", {}).update(trainer)
        given = list(flags)
        notes = settle(configuration, given)
        return configuration.values["trainer"], given, notes

    return settled


@pytest.fixture
def refusal(cli, tmp_path, cache):
    """What fit says when it refuses in one line of at most three, with code 2."""

    def refuse(*arguments: str, files=TINY) -> str:
        given = [word for file in files for word in ("-c", file)]
        finished = cli(
            "fit", *given, f"--runs_dir={tmp_path}", f"--data.cache_dir={cache}", *arguments
        )
        assert finished.code == 2, finished.err
        errors = finished.err[finished.err.index("error: ") :].splitlines()
        assert len(errors) <= 3
        assert "Traceback" not in finished.err
        assert not list(tmp_path.rglob("step-*"))
        return errors[0]

    return refuse


# -- who started this process --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None),  # a child of Lightning's own launcher
        ({"LOCAL_WORLD_SIZE": "8", "WORLD_SIZE": "32"}, Launcher("torchrun", 8, 4)),
        ({"SLURM_NTASKS": "1"}, Launcher("SLURM", 1, 1)),
        (
            {"SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NUM_NODES": "3"},
            Launcher("SLURM", 2, 3),
        ),
        (  # a step on one of the job's two nodes
            {
                "SLURM_NTASKS": "2",
                "SLURM_NTASKS_PER_NODE": "2",
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_JOB_NUM_NODES": "2",
            },
            Launcher("SLURM", 2, 1),
        ),
        (  # torchrun may be started by SLURM, once per node
            {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8", "SLURM_NTASKS": "2"},
            Launcher("torchrun", 4, 2),
        ),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "bash"}, None),  # srun --pty bash
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, None),  # salloc
    ],
)
def test_the_environment_says_who_started_how_many(environment, expected):
    assert launcher(environment) == expected


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"LOCAL_WORLD_SIZE": "3", "WORLD_SIZE": "8"}, "same --nproc-per-node"),
        ({"SLURM_NTASKS": "8"}, "--ntasks-per-node"),
        (
            {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "3", "SLURM_NNODES": "2"},
            "8 tasks, which is not --nodes=2 x --ntasks-per-node=3",
        ),
        # in a batch script: nothing has started the other seven
        ({"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "8", "ENVIRONMENT": "BATCH"}, "write srun"),
    ],
)
def test_numbers_that_nobody_can_train_with_are_refused(environment, words):
    with pytest.raises(ValueError, match=words):
        launcher(environment)


def test_a_step_of_a_batch_job_is_not_taken_for_the_script():
    environment = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4", "ENVIRONMENT": "BATCH"}
    assert launcher({**environment, "SLURM_STEP_ID": "0"}) == Launcher("SLURM", 4, 1)


# -- devices and nodes ---------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [(), ("--trainer.devices", "auto"), ("--trainer.devices=-1",)])
def test_open_numbers_become_those_of_torchrun(settled, env, devices):
    env({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"})
    trainer, flags, _ = settled(*devices, "--run", "x")
    assert (trainer["devices"], trainer["num_nodes"]) == (2, 3)
    assert flags == ["--run", "x"]


def test_open_numbers_become_those_of_slurm(settled, env):
    env({**SLURM, "SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NUM_NODES": "3"})
    trainer, _, _ = settled()
    assert (trainer["devices"], trainer["num_nodes"]) == (2, 3)


def test_without_a_launcher_numbers_stay_as_they_are(settled):
    trainer, flags, _ = settled("--trainer.devices", "3", "--trainer.num_nodes", "2")
    assert trainer["devices"] == "auto"
    assert flags == ["--trainer.devices", "3", "--trainer.num_nodes", "2"]


@pytest.mark.parametrize("devices", ["2", "0,1", "[0, 1]"])
def test_numbers_that_agree_stay_as_they_were_given(settled, env, devices):
    env({**TORCHRUN_2, "WORLD_SIZE": "4"})
    _, flags, _ = settled("--trainer.devices", devices, "--trainer.num_nodes", "2")
    assert flags[1] == devices


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trainer.devices", "3"], r"--trainer.devices=3, but torchrun started 2 processes"),
        (["--trainer.devices=0,"], r"devices=0,, but torchrun started 2 processes"),
        (["--trainer.devices", "many"], r"devices=many, but torchrun started 2 processes"),
        (["--trainer.num_nodes", "2"], r"--trainer.num_nodes=2, but torchrun .* on 1 node: "),
    ],
)
def test_numbers_that_disagree_are_both_named(settled, env, flags, words):
    env(TORCHRUN_2)
    with pytest.raises(ValueError, match=words):
        settled(*flags)


def test_a_file_for_one_device_under_two_processes_names_the_file_and_the_remedy(refusal, env):
    env(TORCHRUN_2)
    said = refusal(files=[RECIPE])  # the file is one of its parts
    assert f"{TRAINERS['cpu']}: trainer.devices=1, but torchrun started 2 processes" in said
    assert "-c configs/trainer/ddp.yaml" in said


def test_what_the_launcher_says_arrives_in_the_parsed_configuration(cli, env):
    env({**TORCHRUN_2, "WORLD_SIZE": "8"})
    finished = cli("fit", "-c", RECIPE, "-c", TRAINERS["ddp"], "--print_config")
    trainer = yaml.safe_load(finished.out)["trainer"]
    assert (trainer["devices"], trainer["num_nodes"]) == (2, 4)
    assert trainer["precision"] in ("32-true", "bf16-mixed")
    assert trainer["strategy"]["init_args"]["timeout"] == "0:10:00"


# -- strategy ------------------------------------------------------------------------------------


def test_a_strategys_name_on_the_command_line_replaces_a_files_class(settled):
    trainer, flags, _ = settled("--trainer.strategy", "ddp", files=[TRAINERS["tp"]])
    assert (trainer["strategy"], flags) == ("ddp", [])


def test_a_strategys_class_on_the_command_line_is_a_class_to_the_parser(settled):
    name = "lit_llm.training.strategy.Sharded"
    trainer, _, _ = settled(f"--trainer.strategy={name}")
    assert trainer["strategy"] == {"class_path": name}


@pytest.mark.parametrize("files", [[TRAINERS["ddp"]], [TRAINERS["cpu"]]])
def test_arguments_for_sharding_without_sharding_are_refused(settled, files):
    with pytest.raises(ValueError, match=r"fsdp-bf16.yaml: param_dtype .* shards, not for"):
        settled(files=[*files, FSDP_BF16])


def test_arguments_for_sharding_reach_the_strategy_that_shards(settled):
    trainer, _, _ = settled(files=[TRAINERS["hsdp"], FSDP_BF16])
    assert trainer["precision"] == "32-true"
    expected = {"tensor_parallel": 1, "replicate": "auto", "param_dtype": "bfloat16"}
    assert trainer["strategy"]["init_args"] == expected


# -- precision -----------------------------------------------------------------------------------


def test_auto_precision_is_settled_from_files_and_flags_alike(settled):
    by_file, _, notes = settled("--trainer.accelerator", "cpu")
    by_flag, flags, _ = settled("--trainer.precision", "auto", precision="16-mixed")
    assert by_file["precision"] == by_flag["precision"] == "32-true"
    assert flags == []
    (note,) = notes
    assert note.startswith("precision 32-true (auto: ")


def test_a_precision_that_is_given_stays(settled):
    trainer, _, notes = settled("--trainer.precision=bf16-true")
    assert (trainer["precision"], notes) == ("bf16-true", [])
    trainer, _, notes = settled("--trainer.precision=bf16-true", files=[TRAINERS["cpu"]])
    assert (trainer["precision"], notes) == ("bf16-true", [])


def test_a_run_says_its_precision_and_stores_it(tiny_fit, tmp_path):
    arguments = ["--trainer.precision", "auto", "--trainer.max_steps=1"]
    finished = tiny_fit("quickstart/pretrain.yaml", tmp_path, *arguments, "--run", "auto")
    assert finished.code == 0, finished.err
    assert finished.err.count("precision 32-true (auto: ") == 1
    stored = yaml.safe_load((tmp_path / "auto/config.yaml").read_text())
    assert stored["trainer"]["precision"] == "32-true"


# -- refusals ------------------------------------------------------------------------------------


def test_processes_that_would_train_alone_are_refused(refusal, env):
    env({"WORLD_SIZE": "2"})  # somebody else's launcher
    assert "each would train a model of its own" in refusal()


def test_a_gpu_file_without_a_gpu_names_another_file(refusal):
    said = refusal(files=[*TINY, TRAINERS["gpu"]])
    assert "trainer.accelerator=gpu, but PyTorch finds no GPU" in said
    assert "-c configs/trainer/cpu.yaml" in said


@pytest.mark.parametrize(
    ("file", "flags", "words"),
    [
        ("fsdp", ["--trainer.precision=16-mixed"], "16-mixed needs a GPU"),
        (
            "fsdp",
            ["--trainer.strategy.param_dtype=bfloat16", "--trainer.precision=bf16-mixed"],
            "param_dtype=bfloat16 with trainer.precision=bf16-mixed",
        ),
        ("fsdp-tp", [], "1 devices are no multiple of tensor_parallel=2"),
        ("multi-node", ["--trainer.num_nodes=2"], "started alone and would wait for the others"),
    ],
)
def test_what_does_not_fit_the_strategy_is_refused(refusal, file, flags, words):
    assert words in refusal(*flags, files=[*TINY, TRAINERS[file]])


def test_float16_is_refused_where_a_strategy_shards_on_gpus(refusal, monkeypatch):
    monkeypatch.setattr("lit_llm.commands.refusals.device_kind", lambda accelerator: "mps")
    said = refusal("--trainer.precision=16-mixed", files=[*TINY, TRAINERS["fsdp"]])
    assert "16-mixed does not work with a strategy that shards: give bf16-mixed" in said


def test_more_processes_than_gpus_are_refused(refusal, env, monkeypatch):
    monkeypatch.setattr("lit_llm.commands.refusals.device_kind", lambda accelerator: "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    env(TORCHRUN_2)
    said = refusal("--trainer.precision=32-true", files=[*TINY, TRAINERS["ddp"]])
    assert "torchrun started 2 processes on this machine, but PyTorch sees 1 GPU here" in said
