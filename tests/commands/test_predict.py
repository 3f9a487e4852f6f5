import json

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from lit_llm.commands.compose import Configuration
from lit_llm.commands.launch import settle_precision
from lit_llm.commands.predict import precision_for
from tests.conftest import ROOT

TRAINER = ROOT / "configs/trainer"
SHORT = ("--sampling.max_new_tokens=4", '--data.prompts=["Anna is", "Who?"]')


@pytest.fixture
def answers(cli, pretrained, tmp_path):
    """The texts of some answers, and what predict said beside them."""

    def answers(*arguments: str) -> tuple[list[str], str]:
        output = tmp_path / "answers.jsonl"
        finished = cli(
            "predict", *arguments, f"--ckpt_path={pretrained}", f"--output={output}", *SHORT
        )
        assert finished.code == 0, finished.err
        lines = output.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines], finished.err

    return answers


def test_the_trainer_file_of_a_cpu_changes_no_answer(answers):
    texts, said = answers("-c", TRAINER / "cpu.yaml")
    assert "precision 32-true (auto: generating on a CPU" in said
    plain, said = answers("--trainer.accelerator=cpu")
    assert texts == plain
    assert "precision" not in said


def test_packed_weights_answer_under_mixed_precision(answers):
    mixed = ("--trainer.accelerator=cpu", "--trainer.precision=bf16-mixed")
    texts, _ = answers(*mixed, "--decoding.weights=packed")
    assert len(texts) == 2


def test_the_trainer_file_of_a_gpu_says_that_there_is_none(cli, pretrained, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for accelerator in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda: False))
    finished = cli("predict", "-c", TRAINER / "gpu.yaml", f"--ckpt_path={pretrained}", *SHORT)
    assert finished.code == 2
    assert finished.err.startswith("error: trainer.accelerator=gpu, but PyTorch finds no GPU")
    assert len(finished.err.splitlines()) <= 3


@pytest.mark.parametrize(
    ("file", "flags", "expected"),
    [
        ("cpu.yaml", [], "32-true"),
        ("cpu.yaml", ["--trainer.precision", "bf16-true"], "bf16-true"),
        ("cpu.yaml", ["--trainer.precision=auto"], "32-true"),
        (None, ["--trainer.accelerator", "cpu", "--trainer.precision", "auto"], "32-true"),
        ("gpu.yaml", ["--trainer.accelerator=cpu"], "32-true"),
        ("gpu.yaml", ["--trainer.accelerator=mps"], "32-true"),
    ],
)
def test_auto_is_settled_from_files_and_flags(file, flags, expected):
    configuration = Configuration([str(TRAINER / file)] if file else [])
    notes = settle_precision(configuration, flags, precision_for)
    assert configuration.values["trainer"]["precision"] == expected
    assert not any("auto" in flag for flag in flags)
    assert len(notes) == (expected == "32-true")


def test_on_a_gpu_auto_follows_the_device(monkeypatch):
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: False))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H1")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    notes = settle_precision(Configuration([str(TRAINER / "gpu.yaml")]), [], precision_for)
    assert notes == ["precision bf16-mixed (auto: H1 computes in bfloat16)"]


def test_without_auto_nothing_is_settled():
    configuration, flags = Configuration([]), ["--trainer.precision", "16-true"]
    assert settle_precision(configuration, flags, precision_for) == []
    assert (configuration.values, flags) == ({}, ["--trainer.precision", "16-true"])
