import math

import pytest
import torch

from lit_llm.evaluation import likelihood
from lit_llm.evaluation.likelihood import Pair, likelihoods
from tests.evaluation.letters import Letters, random_gpt

LETTERS = Letters("abcdefghijklmnopqrstuvw")
PAIRS = [
    Pair([9], [10, 11, 12, 13]),
    Pair([8, 9, 10], [11]),
    Pair([8, 9, 10], [12]),  # reads the same as the one before
    Pair([8, 9], [10, 13]),  # and so does this one, which predicts more of it
    Pair(list(range(8, 30)), [11, 12]),  # too long: the context of 12 keeps its end
    Pair([30], list(range(8, 20))),  # as long as the context
]


@pytest.fixture(scope="module")
def gpt():
    return random_gpt(LETTERS, max_seq_len=12)


@torch.no_grad()
def slow(gpt, context, continuation):
    """One token at a time, each from what is before it, cut where the row would be too long."""
    start = max(0, len(context) + len(continuation) - 13)
    ids, total, greedy = list(context[start:]), 0.0, True
    for id in continuation:
        logprobs = gpt(torch.tensor([ids]))[0, -1].double().log_softmax(-1)
        total += logprobs[id].item()
        greedy = greedy and int(logprobs.argmax()) == id
        ids.append(id)
    return total, greedy


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_batch_equals_one_token_at_a_time(gpt, batch_size):
    results = likelihoods(gpt, PAIRS, batch_size=batch_size)
    expected = [slow(gpt, *pair) for pair in PAIRS]
    assert [result.logprob for result in results] == pytest.approx(
        [logprob for logprob, _ in expected], abs=1e-5
    )
    assert [result.greedy for result in results] == [greedy for _, greedy in expected]


@torch.no_grad()
def test_what_the_model_would_have_said_is_greedy(gpt):
    ids = [8, 9]
    for _ in range(3):
        ids.append(int(gpt(torch.tensor([ids]))[0, -1].argmax()))
    other = ids[-1] - 1 if ids[-1] > 8 else 9
    results = likelihoods(
        gpt, [Pair([8, 9], ids[2:]), Pair([8, 9], [*ids[2:-1], other])], batch_size=2
    )
    assert [result.greedy for result in results] == [True, False]


def test_logits_are_made_in_pieces(gpt, monkeypatch):
    whole = likelihoods(gpt, PAIRS, batch_size=6)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 3 * LETTERS.vocab_size)
    pieces = likelihoods(gpt, PAIRS, batch_size=6)
    assert [piece.logprob for piece in pieces] == pytest.approx(
        [result.logprob for result in whole], abs=1e-5
    )


def test_pairs_that_read_the_same_are_read_once_and_the_longest_first(gpt, monkeypatch):
    rows, pad = [], likelihood.right_pad
    monkeypatch.setattr(likelihood, "right_pad", lambda *args: rows.append(args[0]) or pad(*args))
    done = []
    likelihoods(gpt, PAIRS, batch_size=2, on_progress=lambda *numbers: done.append(numbers))
    assert [[len(row) for row in batch] for batch in rows] == [[12, 12], [4, 3]]
    assert done == [(2, 6), (6, 6)]


def test_what_cannot_be_scored_is_refused(gpt):
    for pair, said in [
        (Pair([], [8]), "context 1 has no tokens"),
        (Pair([8], []), "continuation 1 has no tokens"),
        (Pair([8], [8] * 13), "continuation 1 has 13 tokens, max_seq_len=12"),
        (Pair([8], [31]), "pair 1: token id 31 is outside"),
        (Pair([31], [8]), "pair 1: token id 31 is outside"),
    ]:
        with pytest.raises(ValueError, match=said):
            likelihoods(gpt, [PAIRS[0], pair], batch_size=2)
    assert likelihoods(gpt, [], batch_size=2) == []


def test_weights_that_diverged_are_no_score():
    gpt = random_gpt(LETTERS, max_seq_len=12)
    with torch.no_grad():
        gpt.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="logits are NaN"):
        likelihoods(gpt, PAIRS, batch_size=2)
