"""benchmarks/rounds.py and turns.py: contenders in processes of their own, one after another."""

import tempfile
from pathlib import Path

import pytest

from benchmarks.rounds import Contender, NotRun, contenders, last_words, ratios, take_turns

SERVER = """
import sys
from benchmarks.turns import Turns

def twice(number):
    print("noise of a library")
    return 2 * number

def die():
    sys.exit("ValueError: no such shape")

Turns().serve(twice=twice, die=die)
"""


@pytest.fixture
def server():
    contender = Contender(["-c", SERVER], seconds=60)
    yield contender
    contender.close()


def test_a_contender_answers_and_what_it_prints_is_no_answer(server):
    assert server.ready == "ready"
    assert [server.ask("twice", number=n) for n in (1, 2, 3)] == [2, 4, 6]


def test_a_contender_that_dies_says_why(server):
    with pytest.raises(NotRun, match="ValueError: no such shape"):
        server.ask("die")


def test_a_contender_that_takes_too_long_is_not_run():
    with pytest.raises(NotRun, match="no answer within 0 s"):
        Contender(["-c", "import time; time.sleep(60)"], seconds=0.1)


def test_a_contender_that_cannot_start_is_not_run_with_its_last_words():
    with pytest.raises(NotRun, match="ModuleNotFoundError: No module named 'no_such_peer'"):
        Contender(["-c", "import no_such_peer"], seconds=60)


def test_an_environment_that_is_not_there_is_not_run(tmp_path):
    with pytest.raises(NotRun, match="make bench installs it"):
        Contender(["-c", ""], python=tmp_path / "python")


def test_the_others_go_on_without_the_missing_one(tmp_path):
    told = []
    makers = {
        "gone": lambda: Contender(["-c", ""], python=tmp_path / "python"),
        "here": lambda: Contender(["-c", SERVER], seconds=60),
    }
    with contenders(makers, lambda name, reason: told.append(name)) as there:
        assert list(there) == ["here"]
        assert there["here"].ask("twice", number=4) == 8
    assert told == ["gone"]


def test_another_one_begins_each_round():
    order = []

    def turn(name):
        order.append(name)
        return float(len(order))

    found = take_turns({"a": lambda: turn("a"), "b": lambda: turn("b")}, rounds=2)
    assert order == ["a", "b", "b", "a"]
    assert found == {"a": [1.0, 4.0], "b": [2.0, 3.0]}


def test_one_that_breaks_is_left_out_and_the_others_go_on():
    told, speeds = [], iter([1.0])

    def breaks():
        try:
            return next(speeds)
        except StopIteration:
            raise NotRun("out of memory") from None

    found = take_turns(
        {"a": breaks, "b": lambda: 2.0}, rounds=3, not_run=lambda *words: told.append(words)
    )
    assert found == {"b": [2.0, 2.0, 2.0]}
    assert told == [("a", "round 2: out of memory")]


def test_an_answer_that_comes_too_late_is_no_answer_to_the_next_request():
    contender = Contender(
        [
            "-c",
            SERVER.replace("return 2", "time.sleep(5); return 2", 1).replace(
                "import sys", "import sys, time", 1
            ),
        ],
        seconds=60,
    )
    contender._seconds = 0.2
    with pytest.raises(NotRun, match="no answer within 0 s"):
        contender.ask("twice", number=1)
    contender._seconds = 60
    with pytest.raises(NotRun, match="it has ended"):
        contender.ask("twice", number=2)
    contender.close()


def test_a_contender_clears_up_behind_itself(tmp_path):
    left = tmp_path / "left"
    code = f"import atexit, pathlib; atexit.register(pathlib.Path({str(left)!r}).touch)\n{SERVER}"
    Contender(["-c", code], seconds=60).close()
    assert left.exists()


def test_the_folder_of_a_contender_goes_with_it():
    folder = tempfile.TemporaryDirectory()
    contender = Contender(["-c", SERVER], seconds=60, folder=folder)
    assert Path(folder.name).is_dir()
    contender.close()
    assert not Path(folder.name).exists()


def test_ratios_are_taken_round_by_round():
    assert ratios([2.0, 3.0], [1.0, 6.0]) == [2.0, 0.5]


def test_the_last_words_are_the_error_and_not_what_follows_it():
    assert last_words("Traceback\nKeyError: 'x'\nbye") == "KeyError: 'x'"
    assert last_words("") == "it said nothing"
