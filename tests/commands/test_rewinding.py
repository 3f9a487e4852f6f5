import pytest

from lit_llm.callbacks import NotFinite
from lit_llm.commands.rewinding import rewinding
from lit_llm.training.guards import Rewind


def attempts(*ends):
    """A run whose attempts end with these exceptions, or well; and the flags that each had."""
    flags = []
    rest = iter(ends)

    def start(more):
        flags.append(list(more))
        end = next(rest)
        if end is not None:
            raise end

    return start, flags


def back(progress=False, limit=2):
    return Rewind("weight w is not finite", progress=progress, limit=limit)


def test_a_run_that_ends_well_is_started_once():
    start, flags = attempts(None)
    rewinding(start)
    assert flags == [[]]


def test_a_run_that_wants_back_goes_on_from_its_last_checkpoint_and_deletes_nothing(capsys):
    start, flags = attempts(back(), None)
    rewinding(start)
    assert flags == [[], ["--ckpt_path", "last", "--overwrite", "false"]]
    assert "weight w is not finite: going back to the newest checkpoint" in capsys.readouterr().err


def test_going_back_again_and_again_without_progress_ends_the_run():
    start, flags = attempts(*[back() for _ in range(9)])
    with pytest.raises(NotFinite, match="and so it was after going back 2 times"):
        rewinding(start)
    assert len(flags) == 3


def test_a_checkpoint_in_between_begins_the_count_anew():
    ends = [back(), back(), back(progress=True), back(), None]
    start, flags = attempts(*ends)
    rewinding(start)
    assert len(flags) == 5


def test_other_errors_pass():
    start, _ = attempts(KeyError("x"))
    with pytest.raises(KeyError):
        rewinding(start)
