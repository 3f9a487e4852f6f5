import os
import time
from pathlib import Path
from threading import Event

import pytest

from lit_llm.checkpoint import verification
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.ranks import Ranks
from lit_llm.checkpoint.verification import cost, see_small, see_whole, verified
from tests.checkpoint.test_ranks import run as run_ranks

SIZES = {"a": 700, "b": 500, "c": 400, "d": 300, "small": 9}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Four files that count as large, and a small one."""
    monkeypatch.setattr(verification, "SMALL", 100)

    def write(inner: Path) -> None:
        for name, size in SIZES.items():
            (inner / name).write_bytes(bytes(size))

    write_folder(tmp_path / "step-1", write)
    return tmp_path / "step-1"


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """Names of the files whose content is compared, in order."""
    names = []
    real = verification.damage

    def record(folder, files):
        names.extend(files)
        return real(folder, files)

    monkeypatch.setattr(verification, "damage", record)
    return names


def _flip(path: Path) -> None:
    path.write_bytes(b"\1" + path.read_bytes()[1:])


def _age(folder: Path) -> None:
    """Let a minute pass for the clock that is compared with the files' own."""
    now = time.time() + 60
    verification.time = lambda: now


@pytest.fixture(autouse=True)
def _real_clock(monkeypatch):
    monkeypatch.setattr(verification, "time", time.time)


def test_small_files_are_checked_before_the_block_and_large_ones_beside_it(folder, monkeypatch):
    began, may_end = Event(), Event()
    real = verification.damage
    order = []

    def wait(inner, files):
        if "a" in files:
            began.set()
            assert may_end.wait(10)
        order.append(sorted(files))
        return real(inner, files)

    monkeypatch.setattr(verification, "damage", wait)
    with verified(folder):
        assert began.wait(10)  # under way
        order.append("read")
        may_end.set()
    assert order == [["small"], "read", ["a", "b", "c", "d"]]


def test_a_damaged_small_file_keeps_the_block_from_starting(folder):
    _flip(folder / "small")
    with pytest.raises(CheckpointError, match="small is damaged"), verified(folder):
        pytest.fail("read")


def test_what_was_read_from_a_damaged_file_does_not_leave_the_block(folder):
    _flip(folder / "c")
    with pytest.raises(CheckpointError, match="c is damaged"), verified(folder):
        pass


def test_damage_explains_what_the_reader_stumbled_over(folder):
    with pytest.raises(KeyError), verified(folder):
        raise KeyError("a bug")
    _flip(folder / "a")
    with pytest.raises(CheckpointError, match="a is damaged") as error, verified(folder):
        raise KeyError("header")
    assert isinstance(error.value.__context__, KeyError)


def test_files_are_divided_over_the_processes_and_the_verdict_is_everybodys(folder, monkeypatch):
    parts = []
    real = verification.damage

    def record(inner, files):
        parts.append(sorted(files))
        return real(inner, files)

    monkeypatch.setattr(verification, "damage", record)
    _flip(folder / "b")

    def load(ranks: Ranks) -> str:
        with verified(folder, ranks):
            pass
        return "read"

    outcomes = run_ranks(load, size=2)
    assert [type(outcome) for outcome in outcomes] == [CheckpointError] * 2
    assert all("b is damaged" in str(outcome) for outcome in outcomes)
    # 700 + 300 + 9 against 500 + 400: the largest first, each to whom has least
    assert sorted(parts) == [[], ["a", "d"], ["b", "c"], ["small"]]


def test_the_cost_is_printed_by_the_first_process_only(folder, capsys):
    def load(ranks: Ranks) -> None:
        with verified(folder, ranks):
            pass

    run_ranks(load, size=3)
    assert capsys.readouterr().err == f"{folder}: verified 1.9 kB in 0.0 s\n"
    with verified(folder, said_from=60):
        pass
    assert capsys.readouterr().err == ""


def test_the_cost_is_said_in_the_unit_that_fits():
    assert cost(1_234_000_000, 0.94) == "verified 1.2 GB in 0.9 s"
    assert cost(5_600_000, 0.0) == "verified 5.6 MB in 0.0 s"
    assert cost(12, 3.0) == "verified 12 bytes in 3.0 s"


def test_what_was_just_seen_whole_is_not_hashed_again_once(folder, hashed):
    _age(folder)
    see_whole(folder)
    assert sorted(hashed) == sorted(SIZES)
    see_whole(folder)
    with verified(folder):
        pass
    assert len(hashed) == len(SIZES)
    with verified(folder):
        pass
    assert len(hashed) == 2 * len(SIZES)


def test_a_file_that_has_changed_since_is_hashed_again(folder):
    _age(folder)
    see_whole(folder)
    status = (folder / "a").stat()
    _flip(folder / "a")
    os.utime(folder / "a", ns=(status.st_atime_ns, status.st_mtime_ns))  # as if it were the old one
    with pytest.raises(CheckpointError, match="a is damaged"):
        see_whole(folder)
    with pytest.raises(CheckpointError, match="a is damaged"), verified(folder):
        pass


def test_a_file_younger_than_a_tick_of_its_clock_is_hashed_again(folder, hashed):
    see_whole(folder)
    with verified(folder):
        pass
    assert len(hashed) == 2 * len(SIZES)


def test_several_processes_always_share_the_work(folder, hashed):
    """Each node has to see the right content, whatever the first one saw."""
    _age(folder)
    see_whole(folder)
    run_ranks(lambda ranks: verified(folder, ranks).__enter__(), size=2)
    assert len(hashed) >= len(SIZES) + 1


def test_descriptions_are_checked_without_reading_tensors(folder):
    _flip(folder / "a")
    see_small(folder)
    (folder / "a").write_bytes(b"")
    with pytest.raises(CheckpointError, match="a is damaged: it has 0 bytes instead of 700"):
        see_small(folder)
    _flip(folder / "small")
    with pytest.raises(CheckpointError, match="small"):
        see_small(folder)
