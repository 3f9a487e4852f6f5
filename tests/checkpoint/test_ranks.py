import errno
import threading
from collections.abc import Callable

import pytest

from lit_llm.checkpoint.folder import SaveFailed
from lit_llm.checkpoint.manifest import CheckpointError, listed
from lit_llm.checkpoint.ranks import OneRank, Ranks, on_first, together


class Threads:
    """Ranks that are threads of this process."""

    def __init__(self, rank: int, size: int, board: list, barrier: threading.Barrier) -> None:
        self.rank, self.size, self.board, self.barrier = rank, size, board, barrier

    def gather(self, value):
        self.board[self.rank] = value
        self.barrier.wait()
        values = list(self.board)
        self.barrier.wait()
        return values

    def broadcast(self, value):
        return self.gather(value)[0]


def run(work: Callable[[Ranks], object], size: int = 3) -> list:
    """What `work` returned or raised on each of them."""
    board: list = [None] * size
    barrier = threading.Barrier(size, timeout=10)
    outcomes: list = [None] * size

    def rank(number: int) -> None:
        try:
            outcomes[number] = work(Threads(number, size, board, barrier))
        except BaseException as error:
            outcomes[number] = error

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def raising(error: BaseException, on: int) -> list:
    def work(ranks: Ranks):
        def action() -> int:
            if ranks.rank == on:
                raise error
            return ranks.rank

        return together(ranks, action)

    return run(work)


def test_every_process_gets_the_results_of_all():
    assert run(lambda ranks: together(ranks, lambda: ranks.rank * 10)) == [[0, 10, 20]] * 3
    assert together(OneRank(), lambda: 7) == [7]


def test_what_the_first_one_did_is_known_to_all():
    done = []

    def work(ranks: Ranks) -> str:
        return on_first(ranks, lambda: done.append(ranks.rank) or "made")

    assert run(work) == ["made"] * 3
    assert done == [0]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SaveFailed(errno.ENOSPC, "disk full"), SaveFailed, "^disk full"),
        (SaveFailed(errno.EFBIG, "too large"), SaveFailed, "^too large"),
        (OSError(errno.EIO, "bad disk"), RuntimeError, r"process 1 of 3 failed: OSError.*bad disk"),
        (KeyError("a"), RuntimeError, "process 1 of 3 failed: KeyError: 'a'"),
    ],
)
def test_an_error_of_one_is_raised_on_all(error, kind, text):
    outcomes = raising(error, on=1)
    for outcome in outcomes:
        assert type(outcome) is kind
        with pytest.raises(kind, match=text):
            raise outcome
    assert outcomes[1].__cause__ is error  # with its traceback, where it happened


def test_a_refusal_of_ours_stays_one(tmp_path):
    outcomes = run(lambda ranks: on_first(ranks, lambda: listed(tmp_path)))
    assert [type(outcome) for outcome in outcomes] == [CheckpointError] * 3
    assert "manifest.json is missing" in str(outcomes[2])


def test_a_full_disk_keeps_its_number():
    outcomes = raising(SaveFailed(errno.ENOSPC, "disk full"), on=2)
    assert [outcome.errno for outcome in outcomes] == [errno.ENOSPC] * 3


def test_a_value_error_of_a_library_is_no_refusal():
    """The command line would hide its traceback and blame the user."""
    outcomes = raising(ValueError("too many values to unpack"), on=0)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 3


def test_an_interrupt_stays_one_where_it_happened_and_ends_the_others():
    outcomes = raising(KeyboardInterrupt(), on=1)
    assert [type(outcome) for outcome in outcomes] == [
        RuntimeError,
        KeyboardInterrupt,
        RuntimeError,
    ]


def test_the_first_of_several_errors_is_everybodys():
    def work(ranks: Ranks):
        return together(ranks, lambda: {}[ranks.rank])

    assert {str(error) for error in run(work)} == {"process 0 of 3 failed: KeyError: 0"}
