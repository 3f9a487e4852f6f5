"""A run that was killed and continued ends with the bits of one that was not."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]


def command(runs: Path, cache: str, *arguments: str) -> list[str]:
    files = ["configs/recipes/quickstart/pretrain.yaml", "tests/configs/tiny.yaml"]
    return [
        *(sys.executable, str(ROOT / "cli.py"), "fit"),
        *(part for file in [*files, "tests/configs/tiny-text.yaml"] for part in ("-c", file)),
        *("--run", "run", f"--runs_dir={runs}", f"--data.cache_dir={cache}"),
        *("--trainer.max_steps=40", "--trainer.val_check_interval=5", "--model.gpt.dropout=0.2"),
        *("--checkpoint.every_n_steps=4", "--checkpoint.keep_last=null"),
        *arguments,
    ]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def column(runs: Path, name: str) -> list[float]:
    with (runs / "run/metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache) -> Path:
    runs = tmp_path_factory.mktemp("uninterrupted")
    run(command(runs, cache, "--data.micro_batch_size=2"))
    return runs


def test_a_killed_run_continues_to_the_same_bits(uninterrupted, tmp_path, cache):
    # dropout, two micro-batches a step, validation between checkpoints; killed after step 8
    arguments = command(tmp_path, cache, "--data.micro_batch_size=2")
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run/step-00000008").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run/step-00000040").exists()

    run([*arguments, "--ckpt_path", "last"])
    ends = [runs / "run/step-00000040" for runs in (uninterrupted, tmp_path)]
    weights = [load_file(end / "model.safetensors") for end in ends]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    states = [torch.load(end / "training.ckpt", weights_only=True) for end in ends]
    moments = [state["optimizer_states"][0]["state"] for state in states]
    for index, moment in moments[0].items():
        assert all(torch.equal(moment[name], moments[1][index][name]) for name in moment)
    assert states[0]["lr_schedulers"] == states[1]["lr_schedulers"]
    assert column(uninterrupted, "val/loss") == column(tmp_path, "val/loss")


def test_micro_batches_are_how_and_not_what(uninterrupted, tmp_path, cache):
    # dropout draws per micro-batch: without it the curve does not depend on them
    plain, split = tmp_path / "plain", tmp_path / "split"
    steps = ("--trainer.max_steps=6", "--model.gpt.dropout=0")
    run(command(plain, cache, *steps))
    run(command(split, cache, *steps, "--data.micro_batch_size=1"))
    assert column(plain, "train/loss") == pytest.approx(column(split, "train/loss"), rel=1e-5)
    grad_norms = [column(runs, "train/grad_norm") for runs in (plain, split)]
    assert grad_norms[0] == pytest.approx(grad_norms[1], rel=1e-4)


def test_two_processes_train_as_one(tmp_path, cache):
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ("--trainer.max_steps=6", "--model.gpt.dropout=0")
    run(command(one, cache, *steps))
    run(command(two, cache, *steps, "--trainer.strategy=ddp", "--trainer.devices=2"))
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        assert column(one, name) == pytest.approx(column(two, name), rel=1e-4)


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, cache):
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    finished = subprocess.run(
        command(tmp_path, cache),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 2
    assert "2 processes were started, but the trainer knows of one" in finished.stderr
