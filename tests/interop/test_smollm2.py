"""Real weights: SmolLM2-135M-Instruct, imported, asked, fine-tuned with LoRA, exported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = ROOT.parent / "shared/data/instructions.json"
QUESTION = "What is the capital of France?"

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1800)]


def cli(*arguments: str | Path) -> str:
    """Run a command as a user does; what it printed."""
    done = subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def imported(smollm2, tmp_path_factory) -> tuple[Path, str]:
    """The checkpoint, and what the command said."""
    target = tmp_path_factory.mktemp("imported") / "smollm2"
    return target, cli("import", "--from", smollm2, "--out", target)


def answer_of_transformers(folder: Path) -> str:
    """Greedy, as five lines of a user of transformers have it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    messages = [{"role": "user", "content": QUESTION}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0]
    return tokenizer.decode(output[inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def our_answer(checkpoint: Path, output: Path) -> str:
    """Greedy, by `predict`."""
    cli(
        *("predict", "--ckpt_path", checkpoint, "--data.prompts", json.dumps([QUESTION])),
        *("--sampling.temperature", "0", "--sampling.max_new_tokens", "40", "--output", output),
    )
    return json.loads(output.read_text())["text"]


def test_it_computes_what_transformers_computes(imported, found):
    _, said = imported
    match = re.search(r"differ by at most (\S+), the largest is (\S+) \(float32\)", said)
    assert match is not None
    difference, largest = map(float, match.groups())
    assert difference <= 1e-5 * largest
    assert "1,100 texts and 6 chats have the same tokens" in said
    found("SmolLM2-135M-Instruct", "in", f"{difference:.1e} of {largest}")


def test_it_answers_as_in_transformers(imported, smollm2, tmp_path, found):
    ours = our_answer(imported[0], tmp_path / "answer.jsonl")
    assert ours == answer_of_transformers(smollm2)
    assert "Paris" in ours
    found("SmolLM2-135M-Instruct", "answer", ours)
