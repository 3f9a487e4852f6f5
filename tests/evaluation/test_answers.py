import pytest

from lit_llm.evaluation.answers import Prompt, answer
from lit_llm.evaluation.subject import Subject
from lit_llm.generation import Sampling
from lit_llm.generation.generate import generate
from tests.evaluation.letters import BOS, Letters, random_gpt

LETTERS = Letters("abcdefghijklmnop\n")
PROMPTS = [
    Prompt([BOS, *LETTERS.encode(text)], stop)
    for text, stop in [("a", ()), ("abcdef", ("k",)), ("ab", ("k",)), ("bcd", ()), ("abcde", ())]
]


@pytest.fixture(scope="module")
def gpt():
    return random_gpt(LETTERS, max_seq_len=24)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_prompts_are_answered_in_their_order_whatever_shares_a_batch(gpt, batch_size):
    subject = Subject(gpt, LETTERS, chat=False, batch_size=batch_size)
    done = []
    texts = answer(subject, PROMPTS, Sampling(max_new_tokens=9), lambda *n: done.append(n))
    expected = []
    for prompt in PROMPTS:
        found = generate(
            gpt,
            [prompt.ids],
            Sampling(max_new_tokens=9, stop=list(prompt.stop)),
            stop_ids=subject.stop_ids,
            forbidden_ids=set(LETTERS.special.values()) - subject.stop_ids,
            token_bytes=LETTERS.token_bytes,
        )
        expected.append(found[0].text)
    assert texts == expected
    assert len(set(texts)) > 2
    assert done[-1] == (5, 5)


def test_the_longest_prompts_of_the_same_stop_strings_share_a_batch(gpt, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lit_llm.evaluation.answers.generate",
        lambda *args, **kwargs: (
            seen.append([len(ids) for ids in args[1]]) or generate(*args, **kwargs)
        ),
    )
    subject = Subject(gpt, LETTERS, chat=False, batch_size=2)
    answer(subject, PROMPTS, Sampling(max_new_tokens=2), lambda *n: None)
    assert seen == [[6, 4], [2], [7, 3]]


def test_nothing_asked_is_nothing_answered(gpt):
    subject = Subject(gpt, LETTERS, chat=False)
    assert answer(subject, [], Sampling(), lambda *n: None) == []
