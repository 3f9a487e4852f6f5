"""Real weights: SmolLM2-135M-Instruct, imported, asked, fine-tuned with LoRA, exported."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers

from lit_llm.checkpoint.find import resolve
from lit_llm.checkpoint.merge import load_apart

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


@pytest.fixture(scope="module")
def finetuned(imported, tmp_path_factory) -> Path:
    """The run of 20 steps of LoRA on instructions, and what became of its loss."""
    if not INSTRUCTIONS.is_file():
        pytest.skip(f"{INSTRUCTIONS} is not there: a clone has no instructions to learn from")
    runs = tmp_path_factory.mktemp("runs")
    cli(
        *("fit", "-c", "configs/recipes/finetune-any/finetune.yaml"),
        *("-c", "configs/overlays/lora.yaml", "--model.lora.whole", "[]"),
        *("--model.optimizer.init_args.lr", "5e-4", "--model.init_from", imported[0]),
        *("--data.corpus.path", INSTRUCTIONS, "--data.seq_len", "128"),
        *("--data.global_batch_size", "8", "--data.cache_dir", runs / "cache"),
        *("--trainer.max_steps", "20", "--model.schedule.init_args.warmup_steps", "2"),
        *("--trainer.val_check_interval", "10", "--trainer.limit_val_batches", "20"),
        *("--trainer.log_every_n_steps", "1", "--runs_dir", runs, "--run", "lora"),
    )
    return runs / "lora"


def test_it_learns_from_instructions_by_lora(finetuned, found):
    rows = list(csv.DictReader((finetuned / "metrics.csv").open()))
    val = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    train = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert val[-1] < val[0]
    assert sum(train[-5:]) < sum(train[:5])
    size = sum(file.stat().st_size for file in finetuned.glob("step-00000020/*"))
    assert size < 60e6  # adapters and their moments, not 540 MB
    found("SmolLM2, LoRA, 20 steps", "validation loss", f"{val[0]:.3f} -> {val[-1]:.3f}")


def test_what_it_learned_is_exported_and_loaded_again(finetuned, imported, tmp_path, found):
    said = cli("export", "--ckpt_path", finetuned, "--to", "hf", "--out", tmp_path / "hf")
    assert "equal to transformers" in said
    ours = our_answer(finetuned, tmp_path / "answer.jsonl")
    assert answer_of_transformers(tmp_path / "hf") == ours
    cli("import", "--from", tmp_path / "hf", "--out", tmp_path / "back")
    assert our_answer(tmp_path / "back", tmp_path / "again.jsonl") == ours
    card = (tmp_path / "hf/README.md").read_text()
    assert "imported from smollm2-135m-instruct" in card
    found("SmolLM2, LoRA, 20 steps", "out and in again", ours)


@torch.no_grad()
def test_its_adapters_are_those_of_peft(finetuned, smollm2, tmp_path, found):
    arguments = ("--to", "peft", "--base", smollm2, "--out", tmp_path / "adapters")
    cli("export", "--ckpt_path", finetuned, *arguments)
    base = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapters").eval()
    ours = load_apart(resolve(str(finetuned)))
    tokens = torch.randint(49152, (1, 40), generator=torch.Generator().manual_seed(0))
    expected = theirs(tokens).logits
    difference, largest = float((ours(tokens) - expected).abs().max()), float(expected.abs().max())
    assert difference <= 1e-5 * largest
    found("SmolLM2, LoRA, 20 steps", "peft", f"{difference:.1e} of {largest:.3g}")


def test_llama_cpp_computes_it_too(imported, tmp_path, found):
    said = cli("export", "--ckpt_path", imported[0], "--to", "gguf", "--out", tmp_path / "gguf")
    told = next(line for line in said.splitlines() if line.strip().startswith("llama.cpp:"))
    found("SmolLM2-135M-Instruct", "llama.cpp", told.strip())
