"""Commands that look for a checkpoint, check it and read it hash its content once."""

import shutil
from collections import Counter
from time import time

import pytest

from lit_llm.checkpoint import manifest, verification


@pytest.fixture
def hashed(monkeypatch) -> Counter:
    """How often each file was hashed; small ones, which cost nothing, count as large."""
    counts = Counter()
    real = manifest._sha256

    def count(path):
        counts[path] += 1
        return real(path)

    monkeypatch.setattr(manifest, "_sha256", count)
    monkeypatch.setattr(verification, "SMALL", 0)
    monkeypatch.setattr(verification, "time", lambda: time() + 60)  # the files have settled
    return counts


@pytest.mark.parametrize("command", ["fit", "stage", "validate", "predict", "export"])
def test_a_process_hashes_a_checkpoint_once(
    cli, tiny_fit, cache, pretrained, tmp_path, hashed, command
):
    run = tmp_path / "base"
    shutil.copytree(pretrained, run)
    if command == "fit":
        done = tiny_fit("quickstart/pretrain.yaml", tmp_path, "--run=base", "--trainer.max_steps=7")
    elif command == "stage":
        arguments = ("--run=chat", f"--model.init_from={run}", "--trainer.max_steps=1")
        done = tiny_fit("quickstart/finetune.yaml", tmp_path, *arguments, chat=True)
    else:
        more = {
            "validate": [f"--data.cache_dir={cache}", f"--runs_dir={tmp_path}"],
            "predict": ["--data.prompts=[a]"],
            "export": ["--to=checkpoint", f"--out={tmp_path / 'one'}"],
        }
        done = cli(command, f"--ckpt_path={run}", *more[command])
    assert done.code == 0, done.err
    newest = run / "step-00000006"
    counts = {path.name: n for path, n in hashed.items() if path.parent == newest}
    assert counts == dict.fromkeys(manifest.listed(newest), 1)
