import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_llm.checkpoint.folder import (
    SaveFailed,
    abandon,
    begin,
    clean_leftovers,
    finish,
    free_bytes,
    is_unfinished,
    remove_folder,
    write_folder,
)
from lit_llm.checkpoint.manifest import MANIFEST, CheckpointError, is_complete, verify


def _writer(content: str):
    def write(folder: Path) -> None:
        (folder / "content.txt").write_text(content)

    return write


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_target_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "run" / "step-00000001"

    def write(folder: Path) -> None:
        assert folder.parent == target.parent  # beside it, so that a rename suffices
        assert is_unfinished(folder)
        assert not target.exists()
        (folder / "content.txt").write_text("one")

    write_folder(target, write)
    verify(target)
    assert [path.name for path in target.parent.iterdir()] == ["step-00000001"]


def test_all_content_is_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    """Files, then the manifest, then the folder's entries, then the name, then the parent."""
    events = []
    sync, rename = os.fsync, Path.rename

    def record_sync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def record_rename(self, target):
        events.append("rename")
        return rename(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to know which file is synced")
    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    write_folder(tmp_path / "step-00000001", _writer("one"))
    assert events[:2] == ["content.txt", MANIFEST]
    assert events[2].startswith("step-00000001.tmp-")
    assert events[3:] == ["rename", tmp_path.name]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_exception_leaves_nothing_and_is_not_changed(tmp_path, error):
    def write(folder: Path) -> None:
        (folder / "content.txt").write_text("half")
        raise error

    with pytest.raises(type(error)) as raised:
        write_folder(tmp_path / "step-00000001", write)
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_checkpoint(tmp_path):
    target = tmp_path / "step-00000001"
    write_folder(target, _writer("old"))

    def write(folder: Path) -> None:
        (folder / "content.txt").write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"disk full while saving .*step-00000001"):
        write_folder(target, write, replace=True)
    verify(target)
    assert (target / "content.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_replacement_that_fails_between_its_two_renames_is_undone(tmp_path, monkeypatch):
    target = tmp_path / "step-00000001"
    write_folder(target, _writer("old"))
    rename = Path.rename

    def fail_for_the_new_one(self, to):
        if ".tmp-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OSError, match="Input/output error"):
        write_folder(target, _writer("new"), replace=True)
    verify(target)
    assert (target / "content.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_replacement_leaves_only_the_new_checkpoint(tmp_path):
    target = tmp_path / "step-00000001"
    write_folder(target, _writer("old"))
    write_folder(target, _writer("new"), replace=True)
    verify(target)
    assert (target / "content.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_checkpoint_is_not_replaced_unasked(tmp_path):
    write_folder(tmp_path / "step-00000001", _writer("old"))
    with pytest.raises(CheckpointError, match="exists already"):
        write_folder(tmp_path / "step-00000001", _writer("new"))


def test_a_save_never_replaces_a_folder_that_is_no_checkpoint(tmp_path):
    """As in trainer.save_checkpoint("checkpoints/my-run"): the run's checkpoints would be gone."""
    write_folder(tmp_path / "run" / "step-00000001", _writer("old"))
    with pytest.raises(CheckpointError, match="run is no checkpoint"):
        write_folder(tmp_path / "run", _writer("new"), replace=True)
    verify(tmp_path / "run" / "step-00000001")


def test_a_disk_with_too_little_space_is_refused_before_anything_is_written(tmp_path):
    def write(folder: Path) -> None:
        raise AssertionError("called")

    with pytest.raises(OSError, match="needs 9,000,000,000,000,000,000 bytes") as raised:
        write_folder(tmp_path / "step-00000001", write, bytes_needed=9 * 10**18)
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_several_writers_begin_and_finish_as_one_does(tmp_path):
    target = tmp_path / "step-00000001"
    write_folder(target, _writer("old"))
    abandoned, temporary = begin(target, replace=True), begin(target, replace=True)
    assert is_unfinished(temporary)
    (temporary / "content.txt").write_text("new")
    abandon(abandoned)
    finish(temporary, target)
    verify(target)
    assert (target / "content.txt").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(CheckpointError, match="exists already"):
        begin(target)


FULL_DISK = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
from safetensors.torch import save_file
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.manifest import verify
run = Path(sys.argv[1])
big = {"weight": torch.zeros(3_000_000, dtype=torch.uint8)}
write_folder(run / "step-1", lambda folder: print("old", file=(folder / "content").open("w")))
for save in (torch.save, save_file, lambda _, path: path.write_bytes(bytes(3_000_000))):
    try:
        write_folder(run / "step-2", lambda folder: save(big, folder / "weights"))
    except OSError as error:
        print(error)
    assert [path.name for path in run.iterdir()] == ["step-1"], list(run.iterdir())
    verify(run / "step-1")
"""


def test_a_disk_that_fills_up_during_a_save_is_named_and_given_its_space_back(tmp_path):
    """On a real file system of 2 MB, with writers that hide errno: torch.save and safetensors."""
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    command = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"disk full while saving {tmp_path}/step-2") == 3, done.stdout


def test_only_leftovers_of_dead_processes_are_removed(tmp_path):
    names = {
        "dead": f"step-00000002.tmp-{_dead_pid()}-00c0ffee",
        "alive": f"step-00000003.tmp-{os.getppid()}-00c0ffee",
        "ours": f"step-00000004.tmp-{os.getpid()}-00c0ffee",  # of an earlier life of this id
        "other": "notes.tmp-draft",
    }
    for name in names.values():
        (tmp_path / name).mkdir()
    cleaned = clean_leftovers(tmp_path)
    assert {path.name for path in cleaned} == {names["dead"], names["ours"]}
    assert {path.name for path in tmp_path.iterdir()} == {names["alive"], names["other"]}


def test_a_checkpoint_moved_aside_by_a_killed_replacement_gets_its_name_back(tmp_path):
    old = tmp_path / f"best.old-{_dead_pid()}-00c0ffee"
    write_folder(old, _writer("old"))
    clean_leftovers(tmp_path)
    verify(tmp_path / "best")
    assert list(tmp_path.iterdir()) == [tmp_path / "best"]


def test_the_old_one_is_removed_when_the_new_one_is_in_place(tmp_path):
    write_folder(tmp_path / f"best.old-{_dead_pid()}-00c0ffee", _writer("old"))
    write_folder(tmp_path / "best", _writer("new"))
    clean_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "best"]
    assert (tmp_path / "best" / "content.txt").read_text() == "new"


def test_removal_takes_the_name_away_first(tmp_path, monkeypatch):
    """Killed half-way through, it must not leave a checkpoint that lacks files."""
    target = tmp_path / "step-00000001"
    write_folder(target, _writer("one"))
    monkeypatch.setattr("shutil.rmtree", lambda path: None)  # killed before the first file
    remove_folder(target)
    (left,) = tmp_path.iterdir()
    assert is_unfinished(left)


def test_only_checkpoints_are_removed(tmp_path):
    (tmp_path / "thesis").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        remove_folder(tmp_path / "thesis")
    write_folder(tmp_path / "step-00000001", _writer("one"))
    assert is_complete(tmp_path / "step-00000001")
    remove_folder(tmp_path / "step-00000001")
    assert not (tmp_path / "step-00000001").exists()


def test_what_a_disk_refuses_is_said_with_the_path(tmp_path):
    def write(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(SaveFailed) as raised:
        write_folder(tmp_path / "step-00000001", write)
    assert str(raised.value) == (
        f"saving {tmp_path}/step-00000001 failed: [Errno 13] Permission denied. "
        "Earlier checkpoints are untouched"
    )
    assert raised.value.errno == errno.EACCES


def test_a_limit_on_the_size_of_files_is_told_from_a_full_disk(tmp_path):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
    try:
        with pytest.raises(SaveFailed, match=r"may write, 2,000 bytes \(ulimit -f\).* 3,001 bytes"):
            write_folder(tmp_path / "step-00000001", _writer("x" * 3001), bytes_needed=3001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_said_and_ends_nothing(tmp_path, monkeypatch):
    def fail(path, **options):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    target, dead = tmp_path / "best", f"step-00000002.tmp-{_dead_pid()}-00c0ffee"
    write_folder(target, _writer("old"))
    (tmp_path / dead).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", fail)
        with pytest.warns(UserWarning, match=r"best\.old-.* cannot be removed.*busy"):
            write_folder(target, _writer("new"), replace=True)
        with pytest.warns(UserWarning, match="cannot be removed") as said:
            assert clean_leftovers(tmp_path) == []
        assert any(dead in str(warning.message) for warning in said)
    assert (target / "content.txt").read_text() == "new"
    assert len(clean_leftovers(tmp_path)) == 2
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("total", "free", "known"), [(100, 7, 7), (100, 0, 0), (0, 0, None)])
def test_a_file_system_that_does_not_tell_its_size_is_not_full(
    tmp_path, monkeypatch, total, free, known
):
    usage = SimpleNamespace(total=total, free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert free_bytes(tmp_path) == (sys.maxsize if known is None else known)
