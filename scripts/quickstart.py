"""From raw text to answers: the commands of the README's quickstart, one after the other.

    python scripts/quickstart.py

Prints each command before it runs it, then how much the model knew before and after fine-tuning,
and writes the same to checkpoints/quickstart/result.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("checkpoints/quickstart")
RECIPES = "configs/recipes/quickstart"
BASE, CHAT = RUNS / "base.jsonl", RUNS / "chat.jsonl"
COMMANDS = (
    f"prepare -c {RECIPES}/pretrain.yaml",
    f"fit -c {RECIPES}/pretrain.yaml",
    f"predict -c {RECIPES}/quiz.yaml --ckpt_path {RUNS}/pretrain --output {BASE}",
    f"fit -c {RECIPES}/finetune.yaml",
    f"predict -c {RECIPES}/quiz.yaml --ckpt_path {RUNS}/finetune --output {CHAT}",
)
TOPICS = ("job", "home", "pet", "food", "hobby", "friend")
SKILLS = {
    "unknown": 'people who do not exist: "I don\'t know."',
    "about": "portraits of people",
    "tense": "the past tense of new sentences",
    "sum": "sums that were never asked",
    "fact": "common facts that were never asked",
}
SHOWN = ("held_job", "held_home", "held_pet", "unknown", "tense", "sum")

Record = dict[str, Any]


def main() -> None:
    """Run the commands and show what came of them."""
    start = time.time()
    set_aside(ROOT / RUNS)
    for command in COMMANDS:
        print(f"\n$ python cli.py {command}", flush=True)
        subprocess.run([sys.executable, "cli.py", *command.split()], cwd=ROOT, check=True)
    base, chat = read(ROOT / BASE), read(ROOT / CHAT)
    result = summarize(base, chat, time.time() - start)
    path = ROOT / RUNS / "result.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(base, chat, result)


def set_aside(folder: Path) -> None:
    """Rename what an earlier quickstart left, so that this one starts from nothing."""
    if folder.exists():
        names = (folder.with_name(f"{folder.name}-{n}") for n in count(1))
        old = next(name for name in names if not name.exists())
        folder.rename(old)
        print(f"the runs of an earlier quickstart are now in {old.relative_to(ROOT)}")


def read(path: Path) -> list[Record]:
    """The answers that `predict --output` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def share(records: Iterable[Record], *groups: str) -> float:
    """Right answers among those whose kind is, or begins with, one of the groups."""
    right = [r["correct"] for r in records if r["kind"].startswith(groups)]
    return round(sum(right) / len(right), 4)


def summarize(base: list[Record], chat: list[Record], seconds: float) -> Record:
    """The figures of result.json; shares of right answers, to the letter."""
    return {
        "held_out": share(chat, "held_"),
        "seen": share(chat, "seen_"),
        "base_chat": share(base, "held_"),
        "base_cloze": share(base, "cloze_"),
        "unknown_refused": share(chat, "unknown"),
        "false_refusals": round(false_refusals(chat), 4),
        "by_kind": by_kind(base, chat),
        "seconds": round(seconds, 1),
    }


def false_refusals(chat: list[Record]) -> float:
    """Share of questions about people who exist that got the answer for those who do not."""
    refusal = next(r["expected"] for r in chat if r["kind"] == "unknown")
    known = [r for r in chat if r["kind"].partition("_")[2] in TOPICS]
    return sum(r["text"].strip() == refusal for r in known) / len(known)


def by_kind(base: list[Record], chat: list[Record]) -> dict[str, Record]:
    """Questions of each kind, and how many were answered right before and after fine-tuning."""
    total = Counter(r["kind"] for r in chat)
    before, after = (
        Counter(r["kind"] for r in answers if r["correct"]) for answers in (base, chat)
    )
    return {
        kind: {"questions": n, "before": before[kind], "after": after[kind]}
        for kind, n in total.items()
    }


def show(base: list[Record], chat: list[Record], result: Record) -> None:
    """Print some answers, then the accuracy by kind."""
    console = Console()
    answers = Table("prompt", "before fine-tuning", "after", title="\nQuestions and answers")
    for kind in SHOWN:
        index = next(i for i, r in enumerate(chat) if r["kind"] == kind)
        before, after = (Text(_first_line(r[index]["text"])) for r in (base, chat))
        after.stylize("green" if chat[index]["correct"] else "red")
        answers.add_row(Text(chat[index]["prompt"]), before, after)
    console.print(answers)

    console.print(people_table(base, chat))
    console.print(skills_table(base, chat))
    console.print(
        f"\nFacts that no question of fine-tuning was about: {result['held_out']:.1%} right "
        f"(before: {result['base_chat']:.1%}).\n"
        f"The base model completes {result['base_cloze']:.1%} of the same facts as plain text: "
        "pretraining gives knowledge, fine-tuning gives the form.\n"
        f"{result['seconds']:.0f} seconds. Look at {RUNS}/pretrain/report.html, and ask:\n"
        f"  python cli.py predict --ckpt_path {RUNS}/finetune "
        """--data.prompts '["What is three plus four?"]'""",
        highlight=False,
        soft_wrap=True,
    )


def people_table(base: list[Record], chat: list[Record]) -> Table:
    """What the model knows of the people, by the kind of fact and the way it is asked."""
    table = Table(
        "about people",
        "base\ncloze",
        "base\nchat",
        "seen",
        "held\nout",
        "seen, new\nwording",
        "held out,\nnew wording",
        title="\nRight to the letter",
        caption="cloze: the base model completes a sentence, chat: it is asked; then the "
        "fine-tuned model: facts that fine-tuning asked for (seen) or never did (held out)",
    )
    for topic in TOPICS:
        table.add_row(
            topic,
            f"{share(base, f'cloze_{topic}'):.0%}",
            f"{share(base, f'held_{topic}'):.0%}",
            *(
                f"{share(chat, f'{way}_{topic}'):.0%}"
                for way in ("seen", "held", "wording", "both")
            ),
        )
    return table


def skills_table(base: list[Record], chat: list[Record]) -> Table:
    """What else it was taught; every question is new to it."""
    table = Table("other questions", "before", "after")
    for kind, name in SKILLS.items():
        table.add_row(name, f"{share(base, kind):.0%}", f"{share(chat, kind):.0%}")
    return table


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 48 else line[:47] + "…"


if __name__ == "__main__":
    main()
