"""Which mode a peer takes part in, and which peers."""

from benchmarks import modes
from benchmarks.modes import best, finalists, in_words

SPEEDS = {("32-true", False): 3.0, ("bf16-mixed", False): 8.0, ("bf16-true", False): 9.0}


def test_the_best_mode_is_the_fastest_that_learns():
    assert best(SPEEDS, {"32-true", "bf16-mixed", "bf16-true"}) == ("bf16-true", False)
    assert best(SPEEDS, {"32-true", "bf16-mixed"}) == ("bf16-mixed", False)
    assert best(SPEEDS, set()) == ("32-true", False)


def test_who_is_far_behind_does_not_take_part_in_the_rounds(monkeypatch):
    monkeypatch.setattr(modes, "DRY", False)
    assert finalists({"a": 100.0, "b": 70.0, "c": 69.0}) == {"a", "b"}
    assert finalists({}) == set()


def test_modes_are_texts_in_the_result():
    speeds = {"a": {("32-true", False): 3.0, ("bf16-mixed", True): 8.0}}
    assert in_words(speeds) == {"a": {"32-true": 3.0, "bf16-mixed, compiled": 8.0}}
