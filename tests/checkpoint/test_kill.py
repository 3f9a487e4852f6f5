"""A process that saves is killed at any moment: what is visible afterwards is whole."""

import os
import subprocess
import sys
from pathlib import Path

KILLS = 8

# Imports once, then forks a child that saves without end, kills it, looks, and forks the next.
SAVER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from lit_llm.checkpoint.find import checkpoints, resolve
from lit_llm.checkpoint.folder import clean_leftovers, remove_folder, write_folder
from lit_llm.checkpoint.manifest import verify

run, kills, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(8)

def save(step):
    def write(folder):
        torch.save({"step": step, "weight": torch.full((300_000,), step)}, folder / "training.ckpt")
        (folder / "bundle.json").write_text(str(step))

    write_folder(run / f"step-{step:08d}", write)
    write_folder(run / "best", write, replace=True)
    if step % 100 > 3:
        remove_folder(run / f"step-{step - 3:08d}")

save(1)
for kill in range(kills):
    child = os.fork()
    if child == 0:
        for step in range(100 * (kill + 1), 10**9):
            save(step)
    time.sleep(draw.uniform(0.01, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for folder in checkpoints(run):  # before any cleaning: exactly what a reader sees
        verify(folder)
        step = torch.load(folder / "training.ckpt", weights_only=True)["step"]
        assert folder.name in ("best", f"step-{step:08d}"), (folder, step)
    assert resolve("last", run) == checkpoints(run)[-1]
    half = clean_leftovers(run)
    verify(run / "best")  # it was being replaced all the time, and is never lost
    assert set(run.iterdir()) == set(checkpoints(run))
    print(f"{len(half)} left half-done, {len(checkpoints(run))} whole")
"""


def test_every_checkpoint_that_a_killed_process_left_is_whole(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if Path("/dev/shm").is_dir():  # another file system than the checkpoints': the trap of TMPDIR
        environment["TMPDIR"] = "/dev/shm"
    done = subprocess.run(
        [sys.executable, "-c", SAVER, tmp_path / "run", str(KILLS)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == KILLS
    assert any(not line.startswith("0 left") for line in lines)  # some kill did hit a save
