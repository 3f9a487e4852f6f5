import builtins
import json
import re
import socket
import sys

import pytest
import tqdm

from lit_llm.evaluation.harness_tasks import load_tasks, quiet

TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: quiz.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""


@pytest.fixture
def file(tmp_path):
    record = {"question": "a", "choices": ["b", "c"], "answer": 0}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "mine.yaml").write_text(TASK)
    return tmp_path / "mine.yaml"


def test_the_data_of_a_task_file_lies_beside_it(file):
    loaded = load_tasks(str(file))
    assert list(loaded["tasks"]) == ["mine"]
    assert next(iter(loaded["tasks"]["mine"].test_docs()))["question"] == "a"


def test_a_task_file_asks_no_network(file, monkeypatch):
    asked = []

    def refused(*arguments, **options):
        asked.append(arguments)
        raise OSError("there is no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    load_tasks(str(file))
    assert asked == []


def test_a_function_of_a_task_file_lies_beside_it_too(file):
    (file.parent / "mine.py").write_text("def asked(doc): return doc['question'] * 3\n")
    file.write_text(TASK.replace('"{{question}}"', "!function mine.asked"))
    task = load_tasks(str(file))["tasks"]["mine"]
    assert task.doc_to_text(next(iter(task.test_docs()))) == "aaa"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("quiz.jsonl", "quis.jsonl", "quis.jsonl"),
        ("{{question}}", "{{qestion}}", "'qestion' is undefined"),
        ("task: mine", "task: [", "is no YAML"),
        ("multiple_choice", "multiple_choices", "multiple_choices"),
    ],
)
def test_what_is_wrong_with_a_task_file_is_said_in_a_line(file, old, new, said):
    file.write_text(TASK.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        load_tasks(str(file))
    assert str(refused.value).startswith(str(file))
    assert len(str(refused.value).splitlines()) == 1


def test_a_broken_line_of_data_is_said_in_a_line(file):
    (file.parent / "quiz.jsonl").write_text('{"question": \n')
    with pytest.raises(ValueError, match=r"mine\.yaml: .*JSON") as refused:
        load_tasks(str(file))
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"no file nowhere\.yaml"):
        load_tasks("nowhere.yaml")


class Hub:
    """Stands for the harness's own tasks, of which there are 14,000."""

    all_tasks = ["hellaswag", "arc_easy"]

    def load(self, names):
        raise ConnectionError("Couldn't reach it\nRetrying")


def test_without_a_network_one_line_says_what_can_be_done(monkeypatch):
    monkeypatch.setattr("lit_llm.evaluation.harness_tasks._all_tasks", Hub)
    with pytest.raises(ValueError, match=r"hellaswag: no data from .*Couldn't reach it") as refused:
        load_tasks("hellaswag")
    assert "without a network give a task file" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_name_that_is_no_task_has_the_nearest_one_in_its_error(monkeypatch):
    monkeypatch.setattr("lit_llm.evaluation.harness_tasks._all_tasks", Hub)
    with pytest.raises(ValueError, match="no task 'helaswag'; did you mean hellaswag"):
        load_tasks("helaswag")
    with pytest.raises(ValueError, match="no task 'xyz': see lm_eval ls tasks"):
        load_tasks("xyz")


def test_without_lm_eval_it_is_said_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.partition(".")[0] == "lm_eval":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ValueError, match=r"pip install 'lit-llm\[eval\]'"):
        load_tasks("hellaswag")


def test_bars_and_words_of_libraries_are_off_for_a_while(capsys):
    with quiet():
        assert list(tqdm.tqdm(range(3))) == [0, 1, 2]
        print("bootstrapping for stddev")
    assert capsys.readouterr() == ("", "")
    assert list(tqdm.tqdm(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err
