import json
import re

import pytest
import torch

from lit_llm.evaluation.base import Options
from lit_llm.evaluation.likelihood import Likelihood
from lit_llm.evaluation.multiple_choice import MultipleChoice
from lit_llm.evaluation.subject import Subject
from lit_llm.tokenizer import ChatTemplate, Message
from tests.evaluation.letters import Letters, bigrams, random_gpt

LETTERS = Letters("abcdeé? ")
ODDS = {
    "": {"a": 0.5, "é": 0.125, " ": 0.25},
    "?": {" ": 0.5, "a": 0.25, "b": 0.125},
    " ": {"a": 0.5, "b": 0.25, "é": 0.125},
    "a": {"a": 0.5, "b": 0.5},
}


def nothing(done, total):
    pass


@pytest.fixture
def task(tmp_path):
    def task(*records):
        file = tmp_path / "quiz.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return MultipleChoice("quiz", file)

    return task


@pytest.fixture
def asked(task):
    """Metrics and counts of some questions."""

    def asked(*records, gpt=None, chat=False, **options):
        subject = Subject(gpt or bigrams(LETTERS, ODDS, 32), LETTERS, chat=chat)
        result = task(*records).run(subject, Options(**options), nothing)[0]
        return {metric.name: metric for metric in result.metrics}, result.counts

    return asked


def test_the_likeliest_choice_is_the_answer(asked):
    # a space, then a has 1/2 and b 1/4; the first question wants a, the second b, the third a
    metrics, counts = asked(
        {"question": "c?", "choices": ["b", "a"], "answer": 1},
        {"question": "c?", "choices": ["b", "a"], "answer": "b"},
        {"prompt": "c?", "choices": ["e", "b", "a"], "answer": "a"},
    )
    assert metrics["accuracy"].value == pytest.approx(2 / 3)
    assert metrics["accuracy"].count == 3
    assert metrics["accuracy"].stderr == pytest.approx((2 / 9 / 2) ** 0.5)
    assert counts == {"questions": 3, "choices": 7, "cut": 0}


def test_a_long_choice_is_compared_by_its_bytes(asked):
    # " b": 1 + 2 bits for one byte; " aab": 1 + 1 + 1 + 1 bits for three; " é": 1 + 3 for two
    question = {"question": "c?", "choices": ["b", "aab", "é"]}
    metrics, _ = asked({**question, "answer": 0})
    assert metrics["accuracy"].value == 1  # the fewest bits
    metrics, _ = asked({**question, "answer": 1})
    assert metrics["accuracy_per_byte"].value == 1  # 4/3 bits, against 3 and 4/2
    choices = {"question": "c?", "choices": ["b", "é"]}
    metrics, _ = asked({**choices, "answer": 1})  # 3 bits a byte against 2; 3 bits against 4
    assert (metrics["accuracy"].value, metrics["accuracy_per_byte"].value) == (0, 1)


def test_accuracy_is_told_by_kind(asked):
    question = {"question": "c?", "choices": ["b", "a"]}
    metrics, _ = asked(
        {**question, "answer": 1, "kind": "easy"},
        {**question, "answer": 0, "kind": "hard"},
        {**question, "answer": 1, "kind": "hard"},
        {**question, "answer": 1},
    )
    assert {name: (metric.value, metric.count) for name, metric in metrics.items()} == {
        "accuracy": (0.75, 4),
        "accuracy/easy": (1.0, 1),
        "accuracy/hard": (0.5, 2),
        "accuracy_per_byte": (0.75, 4),
        "accuracy_per_byte/easy": (1.0, 1),
        "accuracy_per_byte/hard": (0.5, 2),
    }


def pairs(monkeypatch, task, record, chat=False):
    """What is read of a question's first choice, and what of it is scored."""
    seen = []
    monkeypatch.setattr(
        "lit_llm.evaluation.multiple_choice.likelihoods",
        lambda gpt, pairs, **_: seen.extend(pairs) or [Likelihood(0.0, True)] * len(pairs),
    )
    subject = Subject(bigrams(LETTERS, ODDS, 32), LETTERS, chat=chat)
    task({"choices": ["a", "b"], "answer": 0, **record}).run(subject, Options(), nothing)
    context, continuation = seen[0]
    return context, LETTERS.decode(continuation)


@pytest.mark.parametrize(
    ("record", "context", "scored"),
    [
        ({"prompt": "c?"}, "c?", " a"),  # a space belongs to the word after it
        ({"prompt": "c? "}, "c?", " a"),
        ({"prompt": "c?  "}, "c?", "  a"),
        ({"prompt": "c?", "choices": [" a", "b"]}, "c?", " a"),
        ({"prompt": "c?", "delimiter": ""}, "c?", "a"),
        ({"prompt": "c?", "delimiter": "de"}, "c?", "dea"),
        ({"prompt": ""}, "", "a"),
    ],
)
def test_question_and_choice_are_joined_by_a_space(monkeypatch, task, record, context, scored):
    bos = LETTERS.special["bos"]
    assert pairs(monkeypatch, task, record) == ([bos, *LETTERS.encode(context)], scored)


def test_a_model_that_chats_is_asked_in_its_template(monkeypatch, task):
    turn = ChatTemplate().prompt(LETTERS, [Message("user", "c?")])
    assert pairs(monkeypatch, task, {"prompt": "c?"}, chat=True) == (turn, "a")
    messages = {"messages": [{"role": "user", "content": "c?"}]}
    assert pairs(monkeypatch, task, messages) == (turn, "a")


def test_the_scores_are_those_of_one_token_at_a_time(asked):
    gpt = random_gpt(LETTERS, max_seq_len=32)
    questions = [("ab?", ["cd", "b a", "e"]), ("e?", ["a", "dddd"]), ("", ["ab", "é"])]
    for question, choices in questions:
        sums = []
        for choice in choices:
            prompt = [LETTERS.special["bos"], *LETTERS.encode(question)]
            ids = [*prompt, *LETTERS.encode((" " if question else "") + choice)]
            with torch.no_grad():
                logprobs = gpt(torch.tensor([ids]))[0].log_softmax(-1)
            places = range(len(prompt), len(ids))
            sums.append(sum(logprobs[place - 1, ids[place]].item() for place in places))
        likeliest = sums.index(max(sums))
        record = {"question": question, "choices": choices, "answer": likeliest}
        assert asked(record, gpt=gpt)[0]["accuracy"].value == 1


def test_what_does_not_fit_loses_its_beginning_and_is_counted(asked):
    question = {"choices": ["b", "a"], "answer": 1}
    metrics, counts = asked(
        {**question, "question": "c" * 50 + "?"}, {**question, "question": "c?"}
    )
    assert counts["cut"] == 2
    assert metrics["accuracy"].value == 1


def test_a_limit_asks_the_first_questions(asked):
    question = {"question": "c?", "choices": ["b", "a"]}
    metrics, counts = asked({**question, "answer": 1}, {**question, "answer": 0}, limit=1)
    assert (metrics["accuracy"].value, counts["questions"]) == (1, 1)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "c", "choices": ["a", "b"]}, '"answer" is missing'),
        ({"question": "c", "choices": ["a", "b"], "anwser": 1}, 'did you mean it by "anwser"?'),
        ({"question": "c", "choices": ["a", "b"], "answer": 2}, "index from 0 to 1, got 2"),
        ({"question": "c", "choices": ["a", "b"], "answer": -1}, "got -1"),
        ({"question": "c", "choices": ["a", "b"], "answer": True}, "got True"),
        ({"question": "c", "choices": ["a", "b"], "answer": "c"}, "got 'c'"),
        ({"question": "c", "choices": ["a"], "answer": 0}, "two texts or more"),
        ({"question": "c", "choices": ["a", ""], "answer": 0}, "none of them empty"),
        ({"question": "c", "choices": ["a", "b"], "answer": 0, "delimiter": 3}, '"delimiter"'),
        ({"choices": ["a", "b"], "answer": 0}, "one of them"),
    ],
)
def test_a_malformed_question_is_said_with_file_and_line(task, record, said):
    with pytest.raises(ValueError, match=r"quiz\.jsonl:2: .*" + re.escape(said)):
        task({"question": "c", "choices": ["a", "b"], "answer": 0}, record)
