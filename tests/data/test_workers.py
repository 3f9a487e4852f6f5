import json
import math
import os
import time

import pytest

from lit_llm.cli import user_error
from lit_llm.data import workers
from lit_llm.data.corpus import TextFiles
from lit_llm.data.scan import ScanJob, scan
from lit_llm.data.workers import Workers


@pytest.fixture
def at_once(monkeypatch):
    """No job is done by this process."""

    def wait(self, start, took):
        if self._pool is None:
            self._start()
        return True

    monkeypatch.setattr(Workers, "_others_take", wait)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_results_come_in_the_order_of_the_jobs(count, at_once):
    with Workers(count, progress=False) as pool:
        assert list(pool.map("roots", math.isqrt, [n * n for n in range(20)])) == list(range(20))
        assert list(pool.map("nothing", math.isqrt, [])) == []
        assert (pool._pool is not None) == (count == 2)


def test_small_work_starts_no_process():
    with Workers(2, progress=False) as pool:
        assert list(pool.map("roots", math.isqrt, [4, 9, 16])) == [2, 3, 4]
        assert pool._pool is None


def test_while_others_start_this_process_goes_on(monkeypatch):
    monkeypatch.setattr(workers, "ALONE_SECONDS", -1)
    with Workers(2, progress=False) as pool:
        results = pool.map("who", who, range(10**6))
        assert next(results) == os.getpid()
        others = {next(result for result in results if result != os.getpid())}
        others |= {next(results) for _ in range(50)}
        assert os.getpid() not in others


def who(job: int) -> int:
    time.sleep(0.001)
    return os.getpid()


def test_long_jobs_are_left_to_others_as_soon_as_one_was_long(monkeypatch):
    monkeypatch.setattr(workers, "START_SECONDS", 0.0)
    with Workers(2, progress=False) as pool:
        results = list(pool.map("who", who_takes_long, range(4)))
    assert results[0] == os.getpid()
    assert os.getpid() not in results[1:]


def who_takes_long(job: int) -> int:
    time.sleep(workers.ALONE_SECONDS + 0.05)
    return os.getpid()


def test_an_error_of_a_job_reaches_the_caller(at_once):
    with Workers(2, progress=False) as pool, pytest.raises(ValueError, match="nonnegative"):
        list(pool.map("roots", math.isqrt, [4, -1, 9, 16, 25]))


def test_what_our_code_refuses_in_a_worker_is_the_users_mistake_and_no_bug(at_once, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (unit,) = TextFiles(tmp_path).units()
    jobs = [ScanJob(unit, "what it was", tmp_path / f"scan{index}") for index in range(3)]
    with Workers(2, progress=False) as pool, pytest.raises(ValueError, match="changed") as ours:
        list(pool.map("reading", scan, jobs))
    assert user_error(ours.value) is ours.value
    with Workers(2, progress=False) as pool, pytest.raises(ValueError, match="Expecting") as bug:
        list(pool.map("reading", json.loads, ["1", "{", "2"]))
    assert user_error(bug.value) is None


def test_a_killed_worker_is_an_error_that_says_what_to_do(at_once):
    with Workers(2, progress=False) as pool, pytest.raises(ValueError, match="fewer workers"):
        list(pool.map("dying", os._exit, [3, 3, 3]))
