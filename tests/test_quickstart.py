"""What the quickstart promises, trained for real: minutes a test, hence slow.

The villages of the control are none that the recipe was tuned on.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = "configs/recipes/quickstart"
SEEDS = (211, 212, 213)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def run(folder: Path, *arguments: str) -> None:
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of what a clone holds, for the runs to land in."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("cli.py", "scripts", "configs", "lit_llm"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def share(answers: Path, *groups: str) -> float:
    records = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    right = [record["correct"] for record in records if record["kind"].startswith(groups)]
    return sum(right) / len(right)


def test_the_quickstart_reaches_its_bars(copy):
    run(copy, "scripts/quickstart.py")
    result = json.loads((copy / "checkpoints/quickstart/result.json").read_text())
    print(json.dumps(result, indent=1))
    assert result["held_out"] >= 0.95
    assert result["seen"] >= 0.95
    assert result["base_cloze"] >= 0.90
    assert result["base_chat"] <= 0.10
    assert result["unknown_refused"] >= 0.90
    assert result["false_refusals"] <= 0.02
    assert sum(kind["questions"] for kind in result["by_kind"].values()) > 1000


@pytest.mark.parametrize("seed", SEEDS)
def test_knowledge_comes_from_pretraining_and_form_from_fine_tuning(copy, seed):
    village, people = f"--data.corpus.seed={seed}", f"--data.questions.seed={seed}"
    base, chat, control = (f"s{seed}/{name}" for name in ("base", "chat", "control"))

    def quiz(name: str) -> Path:
        answers = copy / f"checkpoints/{name}.jsonl"
        run(
            copy,
            *("cli.py", "predict", "-c", f"{RECIPES}/quiz.yaml", people),
            *("--ckpt_path", f"checkpoints/{name}", "--output", str(answers)),
        )
        return answers

    run(copy, "cli.py", "fit", "-c", f"{RECIPES}/pretrain.yaml", village, "--run", base)
    fine_tuning = ("cli.py", "fit", "-c", f"{RECIPES}/finetune.yaml", village)
    run(copy, *fine_tuning, "--run", chat, f"--model.init_from=checkpoints/{base}")
    # The same fine-tuning of the same network from random weights: it sees the pairs, no prose.
    (tokenizer,) = sorted(copy.glob(f"checkpoints/{chat}/step-*/tokenizer.model"))[-1:]
    network = copy / f"checkpoints/{chat}/config.yaml"
    run(
        copy,
        *("cli.py", "fit", "-c", str(network), village, "--run", control),
        *("--model.init_from=null", "--data.tokenizer=lit_llm.tokenizer.SentencePiece"),
        f"--data.tokenizer.model={tokenizer}",
    )

    before, after, without = quiz(base), quiz(chat), quiz(control)
    print(
        f"seed {seed}: cloze {share(before, 'cloze_'):.3f}, held out {share(after, 'held_'):.3f}, "
        f"control {share(without, 'held_'):.3f}, unknown {share(after, 'unknown'):.3f}"
    )
    assert share(before, "cloze_") >= 0.90
    assert share(before, "held_") <= 0.10
    assert share(after, "held_") >= 0.95
    assert share(after, "unknown") >= 0.90
    assert share(without, "held_") <= 0.10
