import subprocess
from importlib import metadata

import torch

from lit_llm.callbacks.environment import code, environment, hardware


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(
        ["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_code_is_named_by_its_commit_and_what_differs_from_it(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert code(tmp_path) == {"commit": head, "changed": []}
    (tmp_path / "a.py").write_text("2")
    (tmp_path / "new file.py").write_text("3")
    changed = code(tmp_path)["changed"]
    assert [name.strip('"') for name in changed] == ["a.py", "new file.py"]


def test_code_in_no_repository_has_no_commit(tmp_path, monkeypatch):
    assert code(tmp_path) == {"commit": None}
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert code() == {"commit": None}


def test_hardware_has_cores_and_memory():
    found = hardware()
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0.1
    assert len(found["gpus"]) == torch.cuda.device_count()


def test_the_environment_has_versions_data_and_the_line_that_was_typed(fit):
    trainer, _ = fit([], max_steps=1)
    found = environment(trainer, ["python", "cli.py", "fit"])
    assert found["torch"] == metadata.version("torch")
    assert found["command_line"] == ["python", "cli.py", "fit"]
    assert found["data"] == trainer.datamodule.fingerprint
    assert (found["devices"], found["nodes"], found["precision"]) == (1, 1, "32-true")
