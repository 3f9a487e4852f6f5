import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_llm.commands.processes import exit_with_error, rank

ROOT = Path(__file__).parents[2]
FAIL = """
import sys
from lit_llm.commands import processes
processes.PATIENCE_SECONDS = float(sys.argv[1])
processes.exit_with_error("no such file")
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"SLURM_PROCID": "5", "SLURM_LOCALID": "1"}, 5),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 1),  # started by hand in a shell of srun's
        ({"RANK": "3", "SLURM_PROCID": "0"}, 3),  # torchrun, started by SLURM once per node
        ({"LOCAL_RANK": "2", "WORLD_SIZE": "4"}, 2),
    ],
)
def test_the_rank_is_read_from_whoever_started_the_process(environment, expected):
    assert rank(environment) == expected


def test_the_first_process_says_its_error_at_once(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as stopped:
        exit_with_error("no such file")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no such file\n"


def start(patience: float) -> subprocess.Popen:
    command = [sys.executable, "-c", FAIL, str(patience)]
    return subprocess.Popen(command, cwd=ROOT, env={"RANK": "1"}, stderr=subprocess.PIPE, text=True)


def test_another_process_that_failed_alone_says_so():
    process = start(patience=0.2)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "error: process 1: no such file\n")


def test_another_process_that_is_ended_by_its_launcher_says_nothing():
    process = start(patience=60)
    time.sleep(2)  # until it waits
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "")
