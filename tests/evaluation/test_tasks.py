import re

import pytest

from lit_llm.evaluation import tasks
from lit_llm.evaluation.base import Options
from lit_llm.evaluation.bits_per_byte import BitsPerByte
from lit_llm.evaluation.exact_match import ExactMatch
from lit_llm.evaluation.multiple_choice import MultipleChoice
from lit_llm.evaluation.tasks import read_tasks


class Harness:
    uses = frozenset({"num_fewshot"})

    def __init__(self, name):
        self.name = name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tasks, "HarnessTask", Harness)
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "choice.jsonl").write_text('{"prompt": "a", "choices": ["b", "c"], "answer": 0}')
    (tmp_path / "match.jsonl").write_text('{"prompt": "a", "answer": "b"}')
    return tmp_path


def test_an_entry_says_which_task_is_meant(folder):
    entries = [
        "bits_per_byte:a.txt",
        "multiple_choice:choice.jsonl",
        "exact_match:match.jsonl",
        "mine.yaml",
        "hellaswag",
    ]
    for given in (entries, ",".join(entries), ", ".join(entries) + ","):
        made = read_tasks(given, Options())
        classes = [BitsPerByte, MultipleChoice, ExactMatch, Harness, Harness]
        assert [type(task) for task in made] == classes
        assert [task.name for task in made] == entries


def test_a_path_may_hold_colons_and_in_a_list_commas(folder):
    (folder / "a:b,c.txt").write_text("text")
    assert read_tasks(["bits_per_byte:a:b,c.txt"], Options())[0].texts == ["text"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("", "--tasks names no task"),
        ("bits_per_byte", "bits_per_byte of what? Give bits_per_byte:FILE"),
        ("exact_match:", "exact_match: of what? Give exact_match:FILE"),
        ("bits_per_bite:a.txt", "no kind of task 'bits_per_bite'; did you mean bits_per_byte?"),
        ("zzz:a.txt", "there are bits_per_byte, multiple_choice, exact_match"),
        ("exactmatch", "no task 'exactmatch'; did you mean exact_match:FILE?"),
        ("bits_per_byte:nowhere.txt", "no file or folder nowhere.txt"),
        ("exact_match:matsh.jsonl", "did you mean match.jsonl?"),
        ("exact_match:choice.jsonl,mine.yaml,mine.yaml", "--tasks has mine.yaml twice"),
        ("multiple_choice:match.jsonl", 'match.jsonl:1: "choices" is missing'),
    ],
)
def test_what_is_no_task_is_refused(folder, entries, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_tasks(entries, Options())


@pytest.mark.parametrize(
    ("option", "by"),
    [
        ({"stride": 3}, "bits_per_byte:a.txt"),
        ({"chat": False}, "multiple_choice:choice.jsonl"),
        ({"max_new_tokens": 3}, "exact_match:match.jsonl"),
        ({"num_fewshot": 0}, "mine.yaml"),
    ],
)
def test_an_option_that_no_task_looks_at_is_refused(folder, option, by):
    every = ["bits_per_byte:a.txt", "multiple_choice:choice.jsonl", "mine.yaml"]
    others = [entry for entry in every if entry != by]
    if "chat" not in option:
        (name,) = option
        with pytest.raises(ValueError, match=f"--{name}: none of the tasks"):
            read_tasks(others, Options(**option))
    assert len(read_tasks([by], Options(**option))) == 1
