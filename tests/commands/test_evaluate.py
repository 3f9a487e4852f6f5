import json
import re
import subprocess
import sys

import pytest

from lit_llm.commands import evaluate as evaluate_command
from lit_llm.commands.evaluate import table
from lit_llm.evaluation.result import Metric, Result
from tests.conftest import ROOT

CHOICES = {"question": "Anna is a", "choices": ["baker", "xqz"], "answer": 0}
TASK = """
task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: choices.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Data for every kind of task."""
    (tmp_path / "text.txt").write_text("Anna bakes bread.\nHer friend is a miller.\n" * 5)
    (tmp_path / "choices.jsonl").write_text(json.dumps(CHOICES) + "\n" + json.dumps(CHOICES))
    questions = [{"prompt": "Who?", "answer": f"{n}", "kind": "who"} for n in range(3)]
    (tmp_path / "match.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "mine.yaml").write_text(TASK)
    (tmp_path / "typo.yaml").write_text("task: mine.yaml\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluate(cli, folder):
    def evaluate(*arguments):
        return cli("evaluate", *arguments)

    return evaluate


def test_all_kinds_of_tasks_in_one_call(evaluate, pretrained):
    file = pretrained / "evaluation.json"
    file.unlink(missing_ok=True)
    tasks = "bits_per_byte:text.txt,multiple_choice:choices.jsonl,exact_match:match.jsonl,mine.yaml"
    finished = evaluate("--ckpt_path", pretrained, "--tasks", tasks, "--max_new_tokens=5")
    assert finished.code == 0, finished.err
    (entry,) = json.loads(file.read_text())
    results = {result["task"]: result for result in entry["results"]}
    assert list(results) == [*tasks.split(",")[:3], "mine"]
    bits = results["bits_per_byte:text.txt"]
    assert bits["counts"]["bytes"] == 5 * 42
    assert 1 < bits["metrics"]["bits_per_byte"]["value"] < 10
    assert results["mine"]["metrics"]["acc"]["count"] == 2
    same = results["multiple_choice:choices.jsonl"]["metrics"]["accuracy"]["value"]
    assert results["mine"]["metrics"]["acc"]["value"] == same
    assert results["exact_match:match.jsonl"]["metrics"]["accuracy/who"]["count"] == 3
    assert entry["checkpoint"] == str(pretrained / "step-00000006")
    assert (entry["step"], entry["dtype"]) == (6, "float32")
    assert entry["settings"]["tasks"] == tasks
    assert entry["settings"]["max_new_tokens"] == 5
    assert {"torch", "lm_eval", "python"} <= {name.replace("-", "_") for name in entry["versions"]}
    assert f"in {file}" in finished.out
    for words in ("bits_per_byte:text.txt", "nats_per_token", "accuracy/who", "stderr"):
        assert words in finished.out


def test_each_call_adds_an_entry_and_the_report_shows_it(evaluate, pretrained):
    file = pretrained / "evaluation.json"
    file.unlink(missing_ok=True)
    arguments = ("--ckpt_path", pretrained / "step-00000006", "--tasks", "bits_per_byte:text.txt")
    for limit in (1, 2):
        finished = evaluate(*arguments, f"--limit={limit}", "--stride=4")
        assert finished.code == 0, finished.err
        assert f"report: {pretrained / 'report.html'}" in finished.out
    entries = json.loads(file.read_text())
    windows = [entry["results"][0]["counts"]["windows"] for entry in entries]
    assert windows == [1, 2]
    html = (pretrained / "report.html").read_text()
    assert html.count("<td>bits_per_byte:text.txt</td><td>bits_per_byte</td>") == 2


def test_a_chat_model_is_asked_in_its_template_unless_told_otherwise(evaluate, finetuned, folder):
    arguments = ("--ckpt_path", finetuned, "--tasks", "exact_match:match.jsonl")
    arguments = (*arguments, "--max_new_tokens=3", "--output", folder / "new" / "out.json")
    for flags in ([], ["--chat=false"]):
        finished = evaluate(*arguments, *flags)
        assert finished.code == 0, finished.err
        assert "report" not in finished.out
    entries = json.loads((folder / "new" / "out.json").read_text())
    assert [entry["results"][0]["settings"]["chat"] for entry in entries] == [True, False]


def test_keys_may_stand_in_a_file(evaluate, pretrained, folder):
    (folder / "all.yaml").write_text(
        f"ckpt_path: {pretrained}\ntasks: ['bits_per_byte:text.txt']\nprecision: bfloat16\n"
        "output: out.json\n"
    )
    finished = evaluate("-c", "all.yaml", "--batch_size=2")
    assert finished.code == 0, finished.err
    (entry,) = json.loads((folder / "out.json").read_text())
    assert (entry["dtype"], entry["settings"]["batch_size"]) == ("bfloat16", 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: evaluate: the following arguments are required: ckpt_path, tasks"),
        (["--ckpt=a"], "no such argument --ckpt=a; did you mean --ckpt_path?"),
        (["--zzz"], "no such argument --zzz; --help lists all"),
        (["--ckpt_path=nowhere", "--tasks=a"], "error: --ckpt_path: no checkpoint nowhere"),
        (["--limit=0"], "--limit must be a whole number above 0, got 0"),
        (["--limit=many"], "--limit must be a whole number above 0, got many"),
        (["--batch_size=0"], "--batch_size must be a whole number above 0\n"),
        (["-c", "nowhere.yaml"], "nowhere.yaml"),
        (["-c", "typo.yaml"], "no such argument --task; did you mean --tasks?"),
        (["--num_fewshot=-1"], "--num_fewshot must be a whole number from 0 on, got -1"),
        (["--chat=maybe"], "--chat must be true or false, got maybe"),
        (["--precision=fp8"], "invalid choice: 'fp8' (choose from 'saved', 'float32', 'bfloat16')"),
        (["--tasks=bits_per_bite:text.txt"], "did you mean bits_per_byte?"),
        (["--tasks=bits_per_byte:text.txt,multiple_choice:match.jsonl"], "match.jsonl:1: "),
        (["--tasks=bits_per_byte:text.txt", "--num_fewshot=2"], "--num_fewshot: none of the"),
        (["--tasks=bits_per_byte:text.txt", "--device=tpu"], "--device tpu: give auto, cpu"),
    ],
)
def test_what_is_wrong_is_said_in_three_lines_at_most(evaluate, pretrained, arguments, said):
    if arguments and arguments[0].startswith("--tasks"):
        arguments = [f"--ckpt_path={pretrained}", *arguments]
    finished = evaluate(*arguments)
    assert finished.code == 2
    assert said in finished.err
    assert len(finished.err.splitlines()) <= 3


def test_results_that_could_not_be_noted_are_not_computed(evaluate, pretrained, folder):
    (folder / "out.json").write_text("mine")
    arguments = ("--ckpt_path", pretrained, "--tasks", "no-such-task", "--output", "out.json")
    finished = evaluate(*arguments)
    assert (finished.code, (folder / "out.json").read_text()) == (2, "mine")
    assert finished.err.startswith("error: out.json cannot be read")


def test_a_table_has_a_row_for_each_metric():
    results = [
        Result("a", [Metric("acc", 0.5, 0.25, 1200), Metric("loss", 2.0, None, 7)], {"cut": 3}),
        Result("b", [Metric("acc", 1.0, 0.0, 2)]),
    ]
    columns = [list(column.cells) for column in table(results).columns]
    assert list(zip(*columns, strict=True)) == [
        ("a", "acc", "0.5000", "0.2500", "1,200"),
        ("", "loss", "2.0000", "", "7"),
        ("", "3 cut on the left, to fit the context", "", "", ""),
        ("b", "acc", "1.0000", "0.0000", "2"),
    ]


def test_help_comes_without_importing_torch_or_lightning():
    code = (
        "import sys; from lit_llm.commands.evaluate import run\n"
        "try: run('evaluate', ['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'lightning', 'lm_eval', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "--ckpt_path" in done.stdout
    assert len(done.stdout.splitlines()) < 60


def test_the_examples_of_the_documentation_work(evaluate, pretrained, folder, capsys):
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, re.M | re.S)
    choices, answers = [text for language, text in blocks if language == "json"]
    (folder / "choices.jsonl").write_text(choices)
    (folder / "answers.jsonl").write_text(answers)
    (folder / "quiz.jsonl").write_text(choices.replace('"answer": "river"', '"answer": 0'))
    (task,) = [text for language, text in blocks if language == "yaml"]
    (folder / "my_task.yaml").write_text(task)
    tasks = "multiple_choice:choices.jsonl,exact_match:answers.jsonl,my_task.yaml"
    finished = evaluate("--ckpt_path", pretrained, "--tasks", tasks, "--output", "out.json")
    assert finished.code == 0, finished.err
    results = json.loads((folder / "out.json").read_text())[0]["results"]
    assert [result["task"] for result in results] == [*tasks.split(",")[:2], "village"]
    assert results[1]["metrics"].keys() == {"accuracy", "accuracy/places"}

    (code,) = [text for language, text in blocks if language == "python"]
    code = code.replace("checkpoints/quickstart/pretrain", str(pretrained))
    exec(code.replace("my.txt", "text.txt"), {})
    assert "name='bits_per_byte'" in capsys.readouterr().out


def test_what_was_found_before_a_task_failed_is_kept(folder, pretrained, monkeypatch):
    file = pretrained / "evaluation.json"
    file.unlink(missing_ok=True)
    run = evaluate_command._evaluated

    def fails_later(task, subject, options):
        if task.name.startswith("exact_match"):
            raise ValueError("the disk is gone")
        return run(task, subject, options)

    monkeypatch.setattr(evaluate_command, "_evaluated", fails_later)
    tasks = "bits_per_byte:text.txt,exact_match:match.jsonl"
    with pytest.raises(ValueError, match="the disk is gone"):
        evaluate_command.run("evaluate", ["--ckpt_path", str(pretrained), "--tasks", tasks])
    (entry,) = json.loads(file.read_text())
    assert [result["task"] for result in entry["results"]] == ["bits_per_byte:text.txt"]
