import json
import os

import pytest

from lit_llm.evaluation import history
from lit_llm.evaluation.history import append, history_file, read_history, versions


def test_entries_are_appended(tmp_path):
    file = tmp_path / "new" / "evaluation.json"
    assert read_history(file) == []
    append(file, {"n": 1, "text": "é"})
    append(file, {"n": 2})
    assert read_history(file) == json.loads(file.read_text(encoding="utf-8"))
    assert [entry["n"] for entry in read_history(file)] == [1, 2]
    assert os.listdir(file.parent) == ["evaluation.json"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "evaluation.json"
    append(file, {"n": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        append(file, {"n": 2})
    assert read_history(file) == [{"n": 1}]
    assert os.listdir(tmp_path) == ["evaluation.json"]


@pytest.mark.parametrize("content", ["{", "{}", "[1]", "3"])
def test_a_file_that_holds_something_else_is_never_written_over(tmp_path, content):
    file = tmp_path / "evaluation.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"evaluation\.json .*move it away, or give --output"):
        append(file, {})
    assert file.read_text() == content


def test_a_run_keeps_the_evaluations_of_its_checkpoints(tmp_path):
    checkpoint = tmp_path / "run" / "step-00000002"
    checkpoint.mkdir(parents=True)
    assert history_file(checkpoint) == tmp_path / "run" / "step-00000002.evaluation.json"
    (tmp_path / "run" / "config.yaml").touch()
    assert history_file(checkpoint) == tmp_path / "run" / "evaluation.json"


def test_the_place_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    monkeypatch.chdir(checkpoint)
    assert history_file(checkpoint.__class__(".")) == tmp_path / "model.evaluation.json"


def test_versions_are_those_of_what_is_installed(monkeypatch):
    import torch

    monkeypatch.setattr(history, "PACKAGES", ("torch", "no-such-package"))
    found = versions()
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found.keys() == {"python", "torch"}
