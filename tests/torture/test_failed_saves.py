"""Row 3: a save fails at any of its calls, and what was saved before is still there."""

import errno
import os
import warnings
from pathlib import Path

import pytest

from lit_llm.checkpoint.find import LAST, checkpoints, choose, newest_valid
from lit_llm.checkpoint.folder import clean_leftovers, is_unfinished
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.manifest import verify
from tests.torture.rows import row
from tests.torture.saves import FORMS, assert_same, resume, save
from tests.torture.state import leftovers

ERRORS = (
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EACCES, "Permission denied"),
    OSError(errno.ESTALE, "Stale file handle"),
    RuntimeError("something of ours"),
    MemoryError("no memory"),
)


class Fuse:
    """Lets calls through, and fails one of them; of -1 none, which counts."""

    def __init__(self, at: int, error: BaseException | None = None) -> None:
        self.at, self.error, self.calls = at, error, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.at:
            assert self.error is not None
            raise self.error


class FusedFile:
    """A file whose writes pass the fuse."""

    def __init__(self, file, fuse: Fuse) -> None:
        self._file, self._fuse = file, fuse

    def write(self, data):
        self._fuse()
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def install(patch: pytest.MonkeyPatch, what: str, fuse: Fuse) -> None:
    """Put the fuse into one kind of call."""

    def fused(owner, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments, **options):
            fuse()
            return real(*arguments, **options)

        patch.setattr(owner, name, call)

    if what == "write":
        real = Path.open

        def fused_open(self, mode="r", *arguments, **options):
            file = real(self, mode, *arguments, **options)
            return FusedFile(file, fuse) if "w" in mode else file

        patch.setattr(Path, "open", fused_open)
    elif what == "fsync":
        fused(os, "fsync")
    elif what == "rename":
        fused(Path, "rename")
    else:  # the calls of which a removal consists
        fused(Path, "rename")
        fused(os, "unlink")
        fused(os, "rmdir")


@pytest.fixture(scope="module")
def state(pretrained):
    """What a run has in memory when it saves."""
    return resume(checkpoints(pretrained)[-1])


def assert_nothing_is_lost(run: Path, before: list[Path], state) -> None:
    """Earlier checkpoints load, and nothing that is visible is half of one."""
    for folder in before:
        assert_same(resume(folder), state)
    for path in run.iterdir():
        assert is_unfinished(path) or path in checkpoints(run), path
    for folder in checkpoints(run):
        verify(folder)
    assert newest_valid(run) == (checkpoints(run)[-1], [])


@row(3)
@pytest.mark.parametrize("what", ["write", "fsync", "rename"])
def test_a_save_that_fails_leaves_the_earlier_checkpoints_and_says_why(
    trials, draw, tmp_path, state, what
):
    for trial in trials(full=20, fast=5):
        with trial:
            form = FORMS[trial.number % 2]
            replaces = trial.number % 3 == 2  # a checkpoint that bears the same name
            run = tmp_path / str(trial.number)
            first = run / "step-00000004"
            target = first if replaces else run / "step-00000006"
            save(state, first, form)

            def attempt(fuse: Fuse, to: Path, form=form) -> None:
                with pytest.MonkeyPatch.context() as patch:
                    install(patch, what, fuse)
                    save(state, to, form)

            counted = Fuse(-1)
            rehearsal = tmp_path / f"rehearsal-{trial.number}" / target.name
            if replaces:
                save(state, rehearsal, form)
            attempt(counted, rehearsal)
            assert counted.calls
            error = draw.choice(ERRORS)
            kinds = OSError if isinstance(error, OSError) else (RuntimeError, MemoryError)
            with pytest.raises(kinds) as raised:
                attempt(Fuse(draw.randrange(counted.calls), error), target)

            message = str(raised.value)
            if isinstance(error, OSError):
                reason = "disk full" if error.errno == errno.ENOSPC else error.strerror
                assert reason in message
                assert str(target) in message
                assert "Earlier checkpoints are untouched" in message
            else:
                assert str(error) in message
            assert_nothing_is_lost(run, [first], state)
            clean_leftovers(run)
            assert not leftovers(run)
            save(state, target, form)  # once the disk is well again
            assert_nothing_is_lost(run, [first, target], state)
            assert not leftovers(run)


@row(3)
def test_a_removal_that_fails_loses_nothing_and_ends_no_run(trials, draw, tmp_path, state):
    """Pruning comes after the save: what it cannot remove costs space, and is said.

    What no disk raises is a fault of the program: it ends the run, and costs no checkpoint either.
    """
    io = FolderCheckpointIO()
    for trial in trials(full=20, fast=6):
        with trial:
            form = FORMS[trial.number % 2]
            run = tmp_path / str(trial.number)
            old, new = run / "step-00000004", run / "step-00000006"
            for folder in (old, new, tmp_path / "rehearsal" / str(trial.number)):
                save(state, folder, form)

            def attempt(fuse: Fuse, folder: Path) -> None:
                with pytest.MonkeyPatch.context() as patch:
                    install(patch, "prune", fuse)
                    io.remove_checkpoint(folder)

            counted = Fuse(-1)
            attempt(counted, tmp_path / "rehearsal" / str(trial.number))
            error = ERRORS[trial.number % len(ERRORS)]
            fuse = Fuse(draw.randrange(counted.calls), error)
            if isinstance(error, OSError):
                with pytest.warns(UserWarning, match="step-00000004 cannot be removed") as said:
                    attempt(fuse, old)
                assert error.strerror in str(said[0].message)
            else:
                with pytest.raises(type(error), match=str(error)):
                    attempt(fuse, old)
            assert_nothing_is_lost(run, [new], state)
            assert choose(LAST, run).folder == new

            with warnings.catch_warnings():
                warnings.simplefilter("error")
                io.remove_checkpoint(old)  # at the next save
                clean_leftovers(run)  # or when a run starts here again
            assert [path.name for path in run.iterdir()] == [new.name]
