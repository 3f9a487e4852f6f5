"""benchmarks/result.py: when a bar is met, and what is written of it."""

import json

import pytest

from benchmarks.result import Result, bar_words, judged, read_bars


def test_a_ratio_counts_if_it_holds_in_four_of_five_rounds():
    bar = {"at_least": 1.25}
    assert judged(bar, [1.3, 1.25, 1.4, 1.0, 1.26])["met"]
    assert not judged(bar, [1.3, 1.24, 1.4, 1.0, 1.26])["met"]


def test_an_upper_limit_counts_alike():
    bar = {"at_most": 0.3}
    assert judged(bar, [0.2, 0.3, 0.1, 0.9, 0.3])["met"]
    assert not judged(bar, [0.2, 0.31, 0.1, 0.9, 0.3])["met"]


def test_a_bar_without_a_measurement_is_not_met():
    assert not judged({"at_least": 1.0}, [])["met"]


def test_a_line_about_nothing_measured_says_so():
    assert bar_words(judged({"at_least": 1.0}, [])) == "nothing measured: NOT MET"


def test_a_bar_that_is_no_number_is_not_met():
    assert not judged({"at_most": 1.0}, [float("nan")])["met"]
    one_failed = judged({"at_least": 1.5}, [1.7, 1.8, float("nan"), 1.9, 1.6])
    assert (one_failed["median"], one_failed["holds"], one_failed["met"]) == (1.75, 4, True)


def test_a_line_says_the_median_the_limit_and_the_verdict():
    assert bar_words(judged({"at_least": 2.0}, [3.0, 1.0, 2.5])) == "2.5, >= 2.0 in 2 of 3: NOT MET"


@pytest.mark.parametrize(
    ("table", "name", "bar"),
    [(t, name, bar) for t, bars in read_bars().items() for name, bar in bars.items()],
)
def test_every_bar_has_one_limit_and_says_what_is_measured(table, name, bar):
    assert len({"at_least", "at_most"} & bar.keys()) == 1
    assert bar["measure"]


def test_the_file_holds_what_was_added_so_far(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    result = Result("load", ("name", "batches_per_second"))
    result.add(name="no worker", batches_per_second=10.0)
    result.bar("no-worker", [21.0])
    result.not_run("a peer", "not installed")
    found = json.loads((tmp_path / "load.json").read_text())
    assert found["rows"] == [{"name": "no worker", "batches_per_second": 10.0}]
    assert found["bars"]["no-worker"]["met"] is True
    assert found["not_run"] == [{"name": "a peer", "reason": "not installed"}]
    assert found["torch"]
    assert len(found["commit"]) == 40


def test_a_bar_that_the_file_does_not_know_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    with pytest.raises(KeyError):
        Result("load", ("name",)).bar("no-such-bar", [1.0])
