import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from lit_llm.checkpoint.manifest import verify
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.sharded_io import OneRank, save_distributed
from lit_llm.commands.export import run
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

CONFIG = GPTConfig(vocab_size=7, max_seq_len=6, n_layer=1, d_model=8, n_head=4, d_ff=5)


@pytest.fixture
def trained(tmp_path):
    """A run with one sharded checkpoint."""
    gpt = GPT(CONFIG)
    checkpoint = {
        "state_dict": {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": []}],
        "lit_llm": {"bundle": {"model": gpt_to_plain(CONFIG)}, "tokenizer": None},
    }
    save_distributed(checkpoint, tmp_path / "run" / "step-00000002", OneRank())
    return tmp_path / "run", gpt


def test_a_run_is_exported_as_one_file_and_said_with_its_sizes(trained, tmp_path, capsys):
    folder, gpt = trained
    out = tmp_path / "one"
    run("export", ["--ckpt_path", str(folder), "--to", "checkpoint", "--out", str(out)])
    verify(out)
    weights = load_file(out / "model.safetensors")
    assert torch.equal(weights["embed.weight"], gpt.embed.weight)
    first, *files = capsys.readouterr().out.splitlines()
    assert first == f"{folder / 'step-00000002'} -> {out}"
    assert len(files) == 4
    size = (out / "model.safetensors").stat().st_size
    assert f"{size:,} bytes  model.safetensors" in files[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "arguments are required: ckpt_path, to, out"),
        (
            ["--to", "onnx"],
            "invalid choice: 'onnx' (choose from 'checkpoint', 'peft', 'hf', 'gguf')",
        ),
        (["--ckpt", "a"], "no such argument --ckpt; did you mean --ckpt_path?"),
        (["checkpoints/run"], "no such argument checkpoints/run; --help lists all"),
        (["--ckpt_path", "nowhere", "--to", "checkpoint", "--out", "b"], "no checkpoint nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_three_lines_at_most(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(said)) as refused:
        run("export", arguments)
    assert len(str(refused.value).splitlines()) <= 3


def test_nothing_is_written_over(trained, tmp_path):
    folder, _ = trained
    with pytest.raises(ValueError, match="exists already"):
        run("export", ["--ckpt_path", str(folder), "--to", "checkpoint", "--out", str(tmp_path)])


def test_a_mistake_is_found_without_importing_torch_or_lightning():
    """Importing Lightning takes seconds."""
    code = (
        "import sys; from lit_llm.commands.export import run\n"
        "try: run('export', ['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'lightning'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--ckpt_path" in done.stdout
