"""Any checkpoint goes on under any strategy, at any number of processes."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_llm.checkpoint.find import checkpoints
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("resume_matrix.py")
PROCESSES = {"cpu": 1, "ddp": 2, "fsdp-1": 1, "fsdp": 2, "tp": 2, "fsdp-tp": 4}
STEPS, SAVED = 8, 3


@pytest.fixture(scope="module")
def fits(tmp_path_factory, cache):
    """Runs `fit` with each list of further arguments, all in one start of the processes."""
    runs = tmp_path_factory.mktemp("runs")

    def fits(strategy: str, *further: list[str], optimizer: str = "adamw") -> Path:
        trainer = strategy.removesuffix("-1")
        files = ["quickstart/pretrain.yaml", "tiny.yaml", "tiny-text.yaml", trainer, "32-true"]
        folders = ["configs/recipes", "tests/configs", "tests/configs", "configs/trainer"]
        folders += ["configs/precision"]
        paths = [
            ROOT / folder / (name if name.endswith(".yaml") else f"{name}.yaml")
            for folder, name in zip(folders, files, strict=True)
        ]
        paths.append(ROOT / f"configs/optim/{optimizer}.yaml")
        common = ["fit", *(part for path in paths for part in ("-c", str(path)))]
        common += [f"--data.cache_dir={cache}", f"--runs_dir={runs}", "--samples.n_prompts=0"]
        common += [f"--trainer.max_steps={STEPS}", "--trainer.log_every_n_steps=1"]
        common += ["--data.global_batch_size=8", "--data.micro_batch_size=1"]
        common += ["--model.optimizer.init_args.lr=3e-4", "--trainer.accelerator=cpu"]
        common += ["--trainer.devices=auto", "--checkpoint.every_n_steps=" + str(SAVED)]
        common += ["--checkpoint.keep_last=null"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(PROCESSES[strategy]), "--", str(SCRIPT)]
        for number, arguments in enumerate(further):
            command += ["then"] * bool(number) + common + arguments
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert finished.returncode == 0, finished.stderr[-3000:]
        return runs

    return fits


@pytest.fixture(scope="module")
def uninterrupted(fits):
    """A run of eight steps under a strategy, saved after three; made when first asked for."""
    made = {}

    def uninterrupted(strategy: str) -> Path:
        if strategy not in made:
            made[strategy] = fits(strategy, [f"--run=all-{strategy}"]) / f"all-{strategy}"
        return made[strategy]

    return uninterrupted


@pytest.fixture(scope="module")
def resumed(fits, uninterrupted):
    """Runs that went on from every strategy's checkpoint under one; made when first asked for."""
    made = set()

    def resumed(saved: str, on: str, among: tuple[str, ...]) -> Path:
        missing = [a for a in among if (a, on) not in made]
        if missing:
            made.update((a, on) for a in missing)
            starts = {a: step(uninterrupted(a), SAVED) for a in missing}
            fits(on, *([f"--run={a}-on-{on}", f"--ckpt_path={starts[a]}"] for a in missing))
        return uninterrupted(saved).parent / f"{saved}-on-{on}"

    return resumed


def step(run: Path, number: int) -> Path:
    return run / f"step-{number:08d}"


def losses(run: Path) -> dict[int, float]:
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return {int(row["step"]): float(row["train/loss"]) for row in rows}


def largest_difference(run: Path, other: Path) -> float:
    """Over all weights and all moments of the optimizer at the last step."""
    a, b = (FolderCheckpointIO().load_checkpoint(step(folder, STEPS)) for folder in (run, other))
    pairs = [(a["state_dict"][name], b["state_dict"][name]) for name in b["state_dict"]]
    states = (a["optimizer_states"][0]["state"], b["optimizer_states"][0]["state"])
    assert states[0].keys() == states[1].keys()
    pairs += [(states[0][i][key], states[1][i][key]) for i in states[1] for key in states[1][i]]
    assert len(pairs) > 30
    return max(float((x - y).abs().max()) for x, y in pairs if isinstance(x, torch.Tensor))


def check(saved: str, on: str, among: tuple[str, ...], resumed, uninterrupted) -> None:
    run, reference = resumed(saved, on, among), uninterrupted("cpu")
    assert checkpoints(run)[-1] == step(run, STEPS)
    found, expected = losses(run), losses(reference)
    assert list(found) == list(range(SAVED + 1, STEPS + 1))  # it did not begin anew
    for number, loss in found.items():  # another order of the data would be seen here
        assert loss == pytest.approx(expected[number], abs=1e-5)
    assert largest_difference(run, reference) <= 1e-6


def test_one_process_continues_what_two_sharded_ones_saved(resumed, uninterrupted):
    check("fsdp", "cpu", ("fsdp",), resumed, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("on", PROCESSES)
@pytest.mark.parametrize("saved", PROCESSES)
def test_any_checkpoint_goes_on_under_any_strategy(saved, on, resumed, uninterrupted):
    check(saved, on, tuple(PROCESSES), resumed, uninterrupted)


@pytest.mark.slow
def test_muons_state_goes_on_under_other_strategies_too(fits):
    runs = fits("cpu", ["--run=muon-cpu"], optimizer="muon")
    fits("fsdp", ["--run=muon-fsdp"], optimizer="muon")
    start = step(runs / "muon-fsdp", SAVED)
    for strategy in ("tp", "cpu"):
        arguments = [f"--run=muon-on-{strategy}", f"--ckpt_path={start}"]
        fits(strategy, arguments, optimizer="muon")
        assert largest_difference(runs / f"muon-on-{strategy}", runs / "muon-cpu") <= 1e-6
