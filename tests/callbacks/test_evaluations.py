import json
import re

import pytest

from lit_llm.callbacks.evaluations import evaluations, read_evaluations

HOSTILE = "<script>alert('x')</script>"


def entry(checkpoint, task, **metrics):
    metrics = {
        name: {"value": value, "stderr": stderr, "count": 1200}
        for name, (value, stderr) in metrics.items()
    }
    results = [{"task": task, "metrics": metrics, "counts": {}, "settings": {}}]
    return {"began": "2026-01-02T03:04:05Z", "checkpoint": checkpoint, "results": results}


def cells(html):
    rows = re.findall("<tr>(.*?)</tr>", html)
    return [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in rows]


def test_the_latest_evaluation_comes_first():
    html = evaluations(
        [
            entry("/a/run/step-00000002", "bits_per_byte:x", bits_per_byte=(2.5, 0.25)),
            entry("/a/run/step-00000004", "quiz", acc=(0.5, None), acc_norm=(None, None)),
        ]
    )
    _, *rows = cells(html)
    when = "2026-01-02T03:04:05Z"
    assert rows == [
        ["quiz", "acc", "0.5000", "", "1,200", "step-00000004", when],
        ["quiz", "acc_norm", "", "", "1,200", "step-00000004", when],
        ["bits_per_byte:x", "bits_per_byte", "2.5000", "0.2500", "1,200", "step-00000002", when],
    ]
    assert evaluations([]) == ""


def test_text_is_escaped():
    html = evaluations([entry(HOSTILE, HOSTILE, **{HOSTILE: (1.0, None)})])
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 2  # a checkpoint's name is what follows the last slash
    assert html.count("script&gt;</td>") == 3


def test_a_run_without_evaluations_has_none(tmp_path):
    assert read_evaluations(tmp_path / "evaluation.json") == []


def test_a_file_is_read(tmp_path):
    file = tmp_path / "evaluation.json"
    entries = [entry("a", "b", acc=(0.5, 0.25))]
    file.write_text(json.dumps(entries))
    assert read_evaluations(file) == entries


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", '{"a": 1}', "3", '[{"results": 3}]', '[{"results": [{"metrics": {"a": 1}}]}]'],
)
def test_a_file_that_holds_something_else_is_said(tmp_path, content):
    file = tmp_path / "evaluation.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"evaluation\.json is no list of evaluations"):
        read_evaluations(file)
