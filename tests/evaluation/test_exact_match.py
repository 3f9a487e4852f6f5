import json

import pytest

from lit_llm.evaluation.base import Options
from lit_llm.evaluation.exact_match import ExactMatch
from lit_llm.evaluation.subject import Subject
from lit_llm.generation import Sampling, generate
from lit_llm.tokenizer import ChatTemplate, Message
from tests.evaluation.letters import BOS, Letters, bigrams, random_gpt

LETTERS = Letters("abcde? \n")
# After each of these letters the next one is certain: a b c, then the line ends.
ALPHABET = {
    "": {"a": 0.9},
    "?": {"a": 0.9},
    "a": {"b": 0.9},
    "b": {"c": 0.9},
    "c": {"\n": 0.9},
    "\n": {"d": 0.9},
    "d": {"d": 0.9},
    "e": {" ": 0.9},
    " ": {"a": 0.9},
}


def nothing(done, total):
    pass


@pytest.fixture
def asked(tmp_path):
    """Metrics and counts of some questions."""

    def asked(*records, gpt=None, chat=False, **options):
        file = tmp_path / "quiz.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        subject = Subject(gpt or bigrams(LETTERS, ALPHABET, 32), LETTERS, chat=chat, batch_size=2)
        result = ExactMatch("quiz", file).run(subject, Options(**options), nothing)[0]
        return {metric.name: metric for metric in result.metrics}, result

    return asked


def test_a_text_is_continued_to_the_end_of_the_line(asked):
    metrics, result = asked(
        {"prompt": "e?", "answer": "abc", "kind": "whole"},
        {"prompt": "?e", "answer": "abc\n", "kind": "rest"},  # space around it does not count
        {"prompt": "?ab", "answers": ["b", "c"], "kind": "rest"},
        {"question": "?ab", "response": "ab", "kind": "rest"},
    )
    assert {name: (metric.value, metric.count) for name, metric in metrics.items()} == {
        "accuracy": (0.75, 4),
        "accuracy/whole": (1.0, 1),
        "accuracy/rest": (pytest.approx(2 / 3), 3),
    }
    assert result.counts == {"questions": 4, "cut": 0}
    assert result.settings == {"chat": False, "max_new_tokens": 64}


def test_an_answer_has_so_many_tokens_at_most(asked):
    metrics, _ = asked({"prompt": "e?", "answer": "ab"}, max_new_tokens=2)
    assert metrics["accuracy"].value == 1


def test_a_model_that_chats_answers_a_turn_to_its_end(asked):
    # After the assistant's role, a control token, comes a; a newline ends no turn.
    whole = "abc\n" + "d" * 6
    metrics, result = asked({"prompt": "e?", "answer": whole}, chat=True, max_new_tokens=10)
    assert metrics["accuracy"].value == 1
    assert result.settings["chat"] is True
    messages = [{"role": "user", "content": "e?"}]
    metrics, _ = asked(  # a conversation is one in any model, and beside a plain text
        {"messages": messages, "answer": whole},
        {"prompt": "e?", "answer": "abc"},
        max_new_tokens=10,
    )
    assert metrics["accuracy"].value == 1


def test_answers_are_greedy_and_those_of_generate(asked):
    gpt = random_gpt(LETTERS, max_seq_len=32)
    records = []
    for text in ("ab?", "c", "deeeed", "a?a?"):
        for chat in (False, True):
            turn = ChatTemplate().prompt(LETTERS, [Message("user", text)])
            found = generate(
                gpt,
                [turn if chat else [BOS, *LETTERS.encode(text)]],
                Sampling(max_new_tokens=7, stop=[] if chat else ["\n"]),
                stop_ids={LETTERS.special["eos"], LETTERS.special["end"]},
                forbidden_ids={
                    LETTERS.special[n]
                    for n in ("pad", "bos", "mask", "user", "system", "assistant")
                },
                token_bytes=LETTERS.token_bytes,
            )
            records.append((chat, {"prompt": text, "answer": found[0].text}))
    for chat in (False, True):
        ours = [record for its, record in records if its == chat]
        assert asked(*ours, gpt=gpt, chat=chat, max_new_tokens=7)[0]["accuracy"].value == 1


def test_a_prompt_that_does_not_fit_loses_its_beginning_and_is_counted(asked):
    metrics, result = asked(
        {"prompt": "d" * 40 + "?", "answer": "abc"}, {"prompt": "?", "answer": "abc"}
    )
    assert metrics["accuracy"].value == 1
    assert result.counts["cut"] == 1


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "a"}, '"answer" or "answers" is needed'),
        ({"prompt": "a", "anser": "b"}, 'did you mean it by "anser"?'),
        ({"prompt": "a", "answer": "b", "answers": ["c"]}, "one of them"),
        ({"prompt": "a", "answer": 3}, '"answer" must be a list of texts, got 3'),
        ({"prompt": "a", "answers": []}, '"answers" must be a list of texts'),
        ({"prompt": "a", "answer": "b", "kind": 3}, '"kind" must be a text'),
        ({"answer": "b"}, "messages"),
    ],
)
def test_a_malformed_question_is_said_with_file_and_line(asked, record, said):
    with pytest.raises(ValueError, match=r"quiz\.jsonl:2: ") as refused:
        asked({"prompt": "a", "answer": "b"}, record)
    assert said in str(refused.value)
