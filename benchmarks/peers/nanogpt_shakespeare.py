"""nanoGPT's command for Shakespeare on a CPU, as its README gives it, in a copy of its checkout.

    python -m benchmarks.peers.nanogpt_shakespeare prepare FOLDER TEXT   # NANOGPT=checkout
    python -m benchmarks.peers.nanogpt_shakespeare score FOLDER TEXT

`train` between them is `command()`, run by whoever takes its time. `score` prints nats per
character. Runs in an environment without lit-llm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.nats import cut, summed_nats
from benchmarks.peers import networks

DATA = "data/shakespeare_char"
STEPS = 2000
CONTEXT = 64


def command(python: Path | str, steps: int = STEPS) -> list[str]:
    """The README's command; to be run in the copy."""
    return [
        *(str(python), "train.py", "config/train_shakespeare_char.py", "--device=cpu"),
        *("--compile=False", "--eval_iters=20", "--log_interval=1", f"--block_size={CONTEXT}"),
        *("--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128"),
        *(f"--max_iters={steps}", f"--lr_decay_iters={steps}", "--dropout=0.0"),
    ]


def prepare(folder: Path, text: Path) -> None:
    """Copy the checkout and let it prepare this text instead of one from the network."""
    checkout = Path(os.environ.get("NANOGPT") or "")
    if not (checkout / "train.py").exists():
        raise SystemExit("error: NANOGPT names no checkout of karpathy/nanoGPT")
    (folder / DATA).mkdir(parents=True)
    wanted = ("*.py", "config/*.py", f"{DATA}/*.py")
    for file in (file for pattern in wanted for file in checkout.glob(pattern)):
        target = folder / file.relative_to(checkout)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
    shutil.copy(text, folder / DATA / "input.txt")
    subprocess.run([sys.executable, f"{DATA}/prepare.py"], cwd=folder, check=True)


def score(folder: Path, text: Path) -> float:
    """Nats per character of the last tenth of the text."""
    checkpoint = torch.load(folder / "out-shakespeare-char/ckpt.pt", weights_only=True)
    module = networks.nanogpt(folder)
    model = module.GPT(module.GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    model.eval()

    content = text.read_text(encoding="utf-8")
    number_of = {character: i for i, character in enumerate(sorted(set(content)))}
    head, tail = cut(content)
    ids = [number_of[character] for character in head[-1] + tail]
    # With targets nanoGPT gives the logits of all positions, without only the last one's.
    return summed_nats(lambda x: model(x, x)[0], ids, model.config.block_size) / len(tail)


if __name__ == "__main__":
    call, *paths = sys.argv[1:]
    folder, text = map(Path, paths)
    if call == "prepare":
        prepare(folder, text)
    else:
        print(score(folder, text))
