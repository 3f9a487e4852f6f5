"""The battery counts: a trial that fails is seen, and one that was not made too."""

import os
import signal

import pytest

from tests.torture.rows import ROWS, Score, Trials, is_full, table


def test_a_failing_trial_is_counted_and_the_others_go_on():
    score = Score()
    trials = Trials(score, full_tier=True)
    for trial in trials(full=5, fast=1):
        with trial:
            assert trial.number != 3, "the fourth"
    assert (score.tried, score.survived) == (5, 4)
    with pytest.raises(ExceptionGroup, match="1 of 5 trials") as caught:
        trials.finish()
    assert "the fourth" in str(caught.value.exceptions[0])


def test_trials_that_were_not_made_fail_the_test():
    trials = Trials(Score(), full_tier=True)
    for trial in trials(full=5, fast=1):
        with trial:
            break
    with pytest.raises(AssertionError, match="1 of 5 trials were made"):
        trials.finish()
    with pytest.raises(AssertionError, match="tried nothing"):
        Trials(Score(), full_tier=True).finish()


def test_a_row_is_full_when_all_its_trials_survived():
    number, (_, total) = 2, ROWS[2]
    assert is_full(number, Score(total, total))
    assert not is_full(number, Score(total, total - 1))
    assert not is_full(number, Score(total - 1, total - 1))
    assert "not full" in table({number: Score(total, total - 1)})[1]


def test_a_launched_command_has_its_own_output_exit_code_and_signals(launch):
    refused = launch("fitt")
    assert refused.wait() == 2
    assert refused.err.startswith("error: no command 'fitt'; did you mean fit?")
    helped = launch("--help")
    assert helped.wait() == 0
    assert "usage: python cli.py" in helped.out
    killed = launch("fit", "-c", "configs/recipes/quickstart/pretrain.yaml", "--help")
    killed.send(signal.SIGSTOP)
    assert os.getpgid(killed.pid) == killed.pid
    killed.kill_all()
    assert killed.wait() in (-signal.SIGKILL, 0)
