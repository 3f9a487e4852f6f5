"""Runs of several processes, started as users start them: torchrun, two nodes, SLURM's script."""

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lit_llm.checkpoint.bundle import load_bundle
from lit_llm.checkpoint.find import checkpoints

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "configs/recipes/quickstart/pretrain.yaml"
TINY = [RECIPE, ROOT / "tests/configs/tiny.yaml", ROOT / "tests/configs/tiny-text.yaml"]
ON_CPU = ("--trainer.accelerator", "cpu", "--trainer.precision", "32-true")
LONG = ("--trainer.max_steps", "3000", "--checkpoint.every_n_steps", "20")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Job:
    """Processes that are started by hand and whose output goes to one file."""

    def __init__(self, log: Path, **environment: str) -> None:
        ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM", "TORCHELASTIC")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = {
            **kept,
            "OMP_NUM_THREADS": "1",
            "PYTHON": sys.executable,  # for the scripts
            **environment,
        }
        self.log, self.started = log, []

    def start(self, *command: object) -> subprocess.Popen:
        with self.log.open("ab") as out:
            self.started.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    cwd=ROOT,
                    env=self.environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )
        return self.started[-1]

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 240) -> list[int]:
        until = time.monotonic() + seconds
        return [process.wait(until - time.monotonic()) for process in self.started]

    def wait_for(self, condition, seconds: float = 180) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.output
            assert all(process.poll() is None for process in self.started), self.output
            time.sleep(0.1)

    def end(self) -> None:
        for process in self.started:
            for pid in [
                process.pid,
                *children(process.pid),
            ]:  # torchrun's have sessions of their own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path / "log")
    yield job
    job.end()


@pytest.fixture
def fit(tmp_path, cache):
    """The arguments of a tiny fit of several processes."""

    def fit(trainer: str, run: str, *arguments: str) -> list[str]:
        files = [*TINY, ROOT / f"configs/trainer/{trainer}.yaml"]
        given = [str(word) for file in files for word in ("-c", file)]
        return ["fit", *given, *ON_CPU, f"--data.cache_dir={cache}", f"--runs_dir={tmp_path}",
                f"--run={run}", *arguments]  # fmt: skip

    return fit


def torchrun(*options: object) -> list[str]:
    words = [sys.executable, "-m", "torch.distributed.run", *options, "--", ROOT / "cli.py"]
    return [str(word) for word in words]


def children(parent: int) -> list[int]:
    """Process ids in the order of their start: those of torchrun have the ranks 0, 1, ..."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    rows = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    return sorted(child for child, its_parent in rows if its_parent == parent)


def losses(run: Path) -> dict[int, float]:
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    return {int(float(row["step"])): float(row["train/loss"]) for row in rows}


def assert_equal_runs(first: Path, second: Path) -> None:
    expected, found = losses(first), losses(second)
    assert expected.keys() == found.keys()
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=2e-6)
    old, new = (load_bundle(checkpoints(run)[-1]).state for run in (first, second))
    assert old.keys() == new.keys()
    for name in old:
        torch.testing.assert_close(new[name], old[name], atol=2e-6, rtol=1e-5)


def test_two_nodes_learn_what_one_process_learns(job, fit, tiny_fit, tmp_path):
    port = free_port()
    for node in (0, 1):
        where = ("--master-addr", "127.0.0.1", "--master-port", port, "--nproc-per-node", 1)
        job.start(*torchrun("--nnodes", 2, "--node-rank", node, *where), *fit("ddp", "two"))
    alone = tiny_fit("quickstart/pretrain.yaml", tmp_path, "--run", "one")
    assert alone.code == 0, alone.err
    assert job.wait() == [0, 0], job.output
    assert_equal_runs(tmp_path / "one", tmp_path / "two")
    config = json.loads((checkpoints(tmp_path / "two")[-1] / "bundle.json").read_text())["config"]
    assert (config["trainer"]["devices"], config["trainer"]["num_nodes"]) == (1, 2)
    assert job.output.count("2 processes: 1 on each of 2 nodes, on cpu") == 1
    assert "Seed set to" not in job.output


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["multi-node", "hsdp", "tp"])
def test_sharded_over_two_processes_is_what_one_process_learns(
    job, fit, tiny_fit, tmp_path, trainer
):
    job.start(*torchrun("--standalone", "--nproc-per-node", 2), *fit(trainer, "two"))
    alone = tiny_fit("quickstart/pretrain.yaml", tmp_path, "--run", "one")
    assert alone.code == 0, alone.err
    assert job.wait() == [0], job.output
    assert_equal_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_an_error_of_the_users_is_said_once_by_all_processes(job, fit):
    job.start(
        *torchrun("--standalone", "--nproc-per-node", 2), *fit("ddp", "x", "--trainer.devices=3")
    )
    assert job.wait() != [0]
    assert job.output.count("--trainer.devices=3, but torchrun started 2 processes") == 1
    assert "exitcode  : 2" in job.output


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_a_run_goes_on_by_itself_after_one_process_was_killed(job, fit, tmp_path, trainer):
    arguments = fit(trainer, "run", "--ckpt_path", "last", *LONG, "--trainer.max_steps", "80")
    job.start(*torchrun("--standalone", "--nproc-per-node", 2, "--max-restarts", 1), *arguments)
    job.wait_for(lambda: checkpoints(tmp_path / "run"))
    os.kill(children(job.started[0].pid)[1], signal.SIGKILL)
    assert job.wait() == [0], job.output
    out = job.output
    assert "Traceback" in out[: out.index("process 0 stops")]
    assert "another process of this run is gone or stuck" in out
    assert "start it again with --ckpt_path last" in out
    assert "Restored all states from the checkpoint" in out
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000080"


@pytest.mark.slow
def test_a_process_that_is_stuck_ends_the_run_within_the_timeout(job, fit, tmp_path):
    arguments = fit("ddp", "run", *LONG, "--trainer.strategy.timeout", "0:00:08")
    job.start(*torchrun("--standalone", "--nproc-per-node", 2), *arguments)
    job.wait_for(lambda: checkpoints(tmp_path / "run"))
    os.kill(children(job.started[0].pid)[1], signal.SIGSTOP)
    stopped = time.monotonic()
    job.wait_for(lambda: "process 0 stops: another process" in job.output, seconds=60)
    assert 4 < time.monotonic() - stopped < 30
    assert "Traceback" in job.output


@pytest.mark.slow
def test_sigterm_stops_all_processes_after_the_same_step_and_saves_it(job, fit, tmp_path):
    port, run = free_port(), tmp_path / "run"
    arguments = fit("ddp", "run", *LONG, "--checkpoint.every_n_steps", "1000")
    job.start(*torchrun("--nproc-per-node", 2, "--master-port", port), *arguments)
    job.wait_for(lambda: (run / "metrics.csv").exists() and len(losses(run)) > 2)
    os.kill(job.started[0].pid, signal.SIGTERM)
    job.wait(60)
    (saved,) = checkpoints(run)
    assert max(losses(run)) <= json.loads((saved / "bundle.json").read_text())["step"] < 1000


# -- scripts -------------------------------------------------------------------------------------

SRUN = """#!{python}
# Two tasks of one node, as srun starts them; signals go on to both.
import os, signal, subprocess, sys
step = {{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_ID": "0", "SLURM_NODEID": "0"}}
assert sys.argv[1] == "--kill-on-bad-exit=1"
ranks = [{{"SLURM_PROCID": rank, "SLURM_LOCALID": rank}} for rank in "01"]
tasks = [subprocess.Popen(sys.argv[2:], env=os.environ | step | rank) for rank in ranks]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def slurm(job, tmp_path):
    """A cluster of one node for scripts/slurm.sbatch."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "srun").write_text(SRUN.format(python=sys.executable))
    (bin / "scontrol").write_text('#!/bin/sh\necho "scontrol $@"\n')
    for command in bin.iterdir():
        command.chmod(0o755)
    job.environment |= {
        "PATH": f"{bin}:{os.environ['PATH']}",
        "ENVIRONMENT": "BATCH",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "lit-llm",
        "SLURM_NTASKS": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    return job


@pytest.mark.slow
def test_a_slurm_job_whose_time_is_over_saves_and_is_queued_again(slurm, fit, tmp_path):
    run = tmp_path / "run"
    job = slurm.start(
        "bash", "scripts/slurm.sbatch", *fit("ddp", "run", *LONG, "--trainer.max_steps=100000")[1:]
    )
    slurm.wait_for(lambda: (run / "metrics.csv").exists() and len(losses(run)) > 2)
    os.kill(job.pid, signal.SIGUSR1)
    assert slurm.wait(90) == [0], slurm.output
    assert slurm.output.count("scontrol requeue 7") == 1
    saved = checkpoints(run)[-1]
    assert max(losses(run)) <= json.loads((saved / "bundle.json").read_text())["step"]
    assert "2 processes: 2 on this machine, on cpu" in slurm.output


@pytest.mark.slow
def test_the_torchrun_script_starts_a_run_of_two_nodes(tmp_path, fit):
    job = Job(tmp_path / "log", NODES="2", HEAD="localhost", PORT=str(free_port()), PROCESSES="1")
    try:
        for _ in range(2):  # the same line everywhere
            job.start("scripts/torchrun.sh", *fit("ddp", "run"))
        assert job.wait() == [0, 0], job.output
    finally:
        job.end()
    assert "2 processes: 1 on each of 2 nodes" in job.output
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000006"


@pytest.mark.parametrize("script", ["scripts/torchrun.sh", "scripts/slurm.sbatch"])
def test_scripts_are_valid_bash(script):
    checked = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
