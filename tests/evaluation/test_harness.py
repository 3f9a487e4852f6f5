import json

import pytest
import torch
import yaml

from lit_llm.evaluation import harness
from lit_llm.evaluation.base import Options
from lit_llm.evaluation.harness import SEEDS, HarnessTask, results
from lit_llm.evaluation.result import Metric
from lit_llm.evaluation.subject import Subject
from tests.evaluation.letters import BOS, Letters, random_gpt

LETTERS = Letters("abcdefgh?: ")
QUIZ = [("ab?", ["cd", "b a"]), ("e?", ["a", "dddd"]), ("ccc?", ["ab", "g"]), ("a?", ["h", "b"])]


@pytest.fixture(scope="module")
def gpt():
    return random_gpt(LETTERS, max_seq_len=64)


@pytest.fixture
def file(tmp_path):
    lines = [{"q": question, "c": choices, "a": 0} for question, choices in QUIZ]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    task = {
        "task": "quiz",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}},
        "test_split": "test",
        "fewshot_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{c}}",
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "quiz.yaml").write_text(yaml.safe_dump(task))
    return tmp_path / "quiz.yaml"


@torch.no_grad()
def slow(gpt, question, choice):
    prompt = [BOS, *LETTERS.encode(question)]
    ids = [*prompt, *LETTERS.encode(f" {choice}")]
    logprobs = gpt(torch.tensor([ids]))[0].log_softmax(-1)
    places = range(len(prompt), len(ids))
    return sum(logprobs[place - 1, ids[place]].item() for place in places)


def evaluated(gpt, file, **options):
    done = []
    subject = Subject(gpt, LETTERS, chat=False)
    (result,) = HarnessTask(str(file)).run(
        subject, Options(**options), lambda *numbers: done.append(numbers)
    )
    return result, done


def test_a_local_task_counts_what_a_loop_over_its_questions_counts(gpt, file):
    hits = [slow(gpt, q, c[0]) > slow(gpt, q, c[1]) for q, c in QUIZ]
    assert 0 < sum(hits) < 4
    result, done = evaluated(gpt, file)
    p = sum(hits) / 4
    assert result.metrics == [Metric("acc", p, pytest.approx((p * (1 - p) / 3) ** 0.5), 4)]
    assert (result.task, result.counts) == ("quiz", {"questions": 4})
    assert result.settings["num_fewshot"] == 0
    assert result.settings["seeds"] == SEEDS
    assert done[-1] == (8, 8)


def test_a_limit_takes_the_first_questions(gpt, file):
    hits = [slow(gpt, q, c[0]) > slow(gpt, q, c[1]) for q, c in QUIZ[:2]]
    result, _ = evaluated(gpt, file, limit=2)
    assert (result.metrics[0].value, result.metrics[0].count) == (sum(hits) / 2, 2)


def test_examples_come_before_a_question(gpt, file, monkeypatch):
    read = []
    encode = Letters.encode
    monkeypatch.setattr(
        Letters, "encode", lambda self, text: read.append(text) or encode(self, text)
    )
    file.write_text(file.read_text() + 'fewshot_delimiter: "::"\n')
    result, _ = evaluated(gpt, file, num_fewshot=2, limit=1)
    assert result.settings["num_fewshot"] == 2
    asked = max(read, key=len)
    examples = asked.split("::")
    assert len(examples) == 3
    assert set(examples[:2]) < {f"{q} {c[0]}" for q, c in QUIZ}
    again = []
    read = again
    evaluated(gpt, file, num_fewshot=2, limit=1)
    assert max(again, key=len) == asked  # chosen by a seed


def test_a_task_that_forbids_examples_stays_without(gpt, file):
    file.write_text(file.read_text() + "num_fewshot: 0\n")
    assert evaluated(gpt, file, num_fewshot=2)[0].settings["num_fewshot"] == 0


@pytest.mark.parametrize("mark", ["UNSAFE_CODE", "MULTIMODAL"])
def test_tasks_that_run_code_or_show_pictures_are_refused(monkeypatch, mark):
    task = type("Task", (), {mark: True})()
    monkeypatch.setattr(harness, "load_tasks", lambda name: {"tasks": {"odd": task}})
    with pytest.raises(ValueError, match="odd runs code that the model writes, or shows it"):
        HarnessTask("odd")


def test_what_lm_eval_returns_is_read():
    found = {
        "results": {
            "a": {
                "alias": "a",
                "sample_len": 7,
                "acc,none": 0.5,
                "acc_stderr,none": 0.25,
                "em,strict": 0.125,
                "em_stderr,strict": "N/A",
            }
        },
        "groups": {"g": {"alias": "g", "acc,none": 0.75, "acc_stderr,none": float("nan")}},
        "n-samples": {"a": {"original": 9, "effective": 7}},
        "n-shot": {"a": 3},
        "versions": {"a": 2.0},
    }
    task, group = results(found)
    assert task.metrics == [Metric("acc", 0.5, 0.25, 7), Metric("em (strict)", 0.125, None, 7)]
    assert task.settings == {"harness": True, "seeds": SEEDS, "version": 2.0, "num_fewshot": 3}
    assert (group.task, group.metrics) == ("g", [Metric("acc", 0.75, None, 0)])
