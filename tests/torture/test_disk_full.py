"""Row 4: the disk is full, or a file may not grow: what was saved stays, and the message helps."""

import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from contextlib import contextmanager

import pytest

from lit_llm.checkpoint.find import LAST, checkpoints, choose
from lit_llm.checkpoint.folder import SaveFailed
from lit_llm.checkpoint.manifest import verify
from tests.torture.launching import ROOT
from tests.torture.rows import row
from tests.torture.saves import FORMS, assert_same, resume, save
from tests.torture.state import leftovers

Usage = namedtuple("Usage", "total used free")
BYTES = re.compile(r"\d[\d,]{3,} (bytes|are free)")


@contextmanager
def largest_file(size: int):
    """What `ulimit -f` does, for this process and as long as the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@row(4)
def test_a_file_that_may_not_grow_fails_the_save_and_nothing_else(
    trials, draw, pretrained, tmp_path
):
    state = resume(checkpoints(pretrained)[-1])
    for trial in trials(full=4, fast=4):
        with trial:
            form, run = FORMS[trial.number % 2], tmp_path / str(trial.number)
            old, new = run / "step-00000004", run / "step-00000006"
            save(state, old, form)
            largest = max(path.stat().st_size for path in old.iterdir())
            limit = draw.randrange(4096, largest)
            with largest_file(limit), pytest.raises(SaveFailed) as raised:
                save(state, new, form)
            message = str(raised.value)
            assert str(new) in message
            assert f"{limit:,} bytes (ulimit -f)" in message
            assert "Earlier checkpoints are untouched" in message
            assert [path.name for path in run.iterdir()] == [old.name]
            assert_same(resume(old), state)


@row(4)
@pytest.mark.parametrize("what", ["disk", "limit"])
def test_a_run_whose_checkpoints_cannot_fit_does_not_start(
    trials, cli, tiny_fit_arguments, tmp_path, monkeypatch, what
):
    for trial in trials(full=1, fast=1):
        with trial, monkeypatch.context() as patch:
            arguments = tiny_fit_arguments(tmp_path / "runs", "--run=big")
            if what == "disk":
                patch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 500_000))
                done = cli(*arguments)
            else:
                with largest_file(200_000):  # the optimizer's state has 330 kB
                    done = cli(*arguments)
            assert done.code == 2
            (line, remedy) = re.findall(r"(?m)^error: (.*)\n(.*)", done.err)[0]
            assert str(tmp_path / "runs/big") in line
            assert BYTES.search(line)
            assert "--runs_dir" in remedy if what == "disk" else "ulimit -f" in remedy
            assert "Traceback" not in done.err
            assert not checkpoints(tmp_path / "runs/big")


FULL_DISK = """
import errno, shutil, sys
from pathlib import Path
from tests.torture.saves import assert_same, resume, save
run, source, form, ballast = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
state = resume(source)
real = shutil.disk_usage
def usage(path):  # the check before the first byte finds room: others fill the disk after it
    saving = any(run.glob("*.tmp-*"))
    return real(path) if saving else real(path)._replace(free=10**12)
shutil.disk_usage = usage
(run / "ballast").write_bytes(bytes(int(ballast)))
step, full = 0, None
while full is None:
    step += 1
    assert step < 12
    try:
        save(state, run / f"step-{step:08d}", form)
    except OSError as error:
        full = error
assert full.errno == errno.ENOSPC, full
assert "before the first byte" not in str(full.__cause__), full.__cause__
print(full)
names = sorted(path.name for path in run.glob("*step*"))
assert names == [f"step-{n:08d}" for n in range(1, step)], names
for name in names:
    assert_same(resume(run / name), state)
"""


def in_a_small_disk(folder: object, command: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a shell command to which alone `folder` is a tmpfs of 3 MB."""
    mount = f"mount -t tmpfs -o size=3m none {folder}"
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {command}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def what_fills_up() -> str:
    """A real disk where file systems may be mounted; else a limit, as above."""
    if shutil.which("unshare") is None:
        return "RLIMIT_FSIZE"
    return "RLIMIT_FSIZE" if in_a_small_disk(tempfile.gettempdir(), "true").returncode else "tmpfs"


@row(4)
@pytest.mark.parametrize("what", [what_fills_up()])
def test_a_disk_that_fills_up_during_a_save_keeps_what_it_has(
    trials, draw, pretrained, tmp_path, what
):
    source = checkpoints(pretrained)[-1]
    for trial in trials(full=4, fast=2):
        with trial:
            form = FORMS[trial.number % 2]
            if what == "RLIMIT_FSIZE":
                state = resume(source)
                with largest_file(100_000), pytest.raises(SaveFailed, match="Earlier"):
                    save(state, tmp_path / "step-00000001", form)
                assert not list(tmp_path.iterdir())
                continue
            command = f'exec "$0" -c "$1" {tmp_path} {source} {form} {draw.randrange(600_000)}'
            done = in_a_small_disk(tmp_path, command, sys.executable, FULL_DISK)
            assert done.returncode == 0, done.stderr
            assert f"disk full while saving {tmp_path}/step-" in done.stdout
            assert "Earlier checkpoints are untouched" in done.stdout
            assert BYTES.search(done.stdout)


@row(4)
def test_a_run_that_meets_its_limit_ends_with_the_last_checkpoint_it_had(
    trials, draw, launch, tiny_fit_arguments, tmp_path
):
    for trial in trials(full=2, fast=1):
        with trial:
            run = tmp_path / str(trial.number) / "run"
            running = launch(
                *tiny_fit_arguments(run.parent, "--run=run", "--checkpoint.every_n_steps=2"),
                *("--trainer.max_steps=2000", "--trainer.val_check_interval=2000"),
                "--samples.every_n_steps=5000",
            )
            wanted = draw.randrange(1, 4)
            while running.alive() and len(checkpoints(run)) < min(wanted, 2):
                time.sleep(0.005)
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
            assert running.wait() == 2, running.err
            error = running.err[running.err.index("error: ") :]
            assert str(run / "step-") in error
            assert "200,000 bytes (ulimit -f)" in error
            assert BYTES.search(error)
            assert "Traceback" not in running.err
            assert not leftovers(run)
            assert checkpoints(run)
            for folder in checkpoints(run):
                verify(folder)
            assert choose(LAST, run).folder == checkpoints(run)[-1]
