"""Seconds until 1.88 nats per character of Shakespeare's last tenth, beside nanoGPT.

1.88 is what nanoGPT's README gives for its command on a CPU, so its time is that of the whole
command. Ours is `cli.py fit` with the recipe shakespeare-char/fast.yaml. Both are whole processes,
from their start to their end, with their own validations made and the last checkpoint written; the
text has been prepared for both beforehand. The model that each leaves behind is scored by one
function (benchmarks/nats.py), in windows of its own context. A run of ours that ends above 1.88
counts as never having got there.

    SHAKESPEARE=tinyshakespeare.txt NANOGPT=checkout python -m benchmarks.tables.time_to_loss

Without SHAKESPEARE the text is the checkout's data/shakespeare_char/input.txt.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.nats import cut, summed_nats
from benchmarks.peers import nanogpt_shakespeare
from benchmarks.result import ROOT, Result
from benchmarks.rounds import PEERS, NotRun, last_words
from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.find import resolve

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
GOAL = 1.88
RECIPE = "configs/recipes/shakespeare-char/fast.yaml"
SHORT = ("--trainer.max_steps=2", "--trainer.limit_val_batches=1") if DRY else ()
NANOGPT_STEPS = 250 if DRY else nanogpt_shakespeare.STEPS  # the first checkpoint is at 250
# nanoGPT takes so long that it runs once, in the middle of ours.
TURNS = ("lit-llm", "nanoGPT") if DRY else (*["lit-llm"] * 2, "nanoGPT", *["lit-llm"] * 3)


@dataclass(frozen=True)
class Run:
    """A whole process."""

    seconds: float
    nats: float
    """Per character of the last tenth of the text."""


def main() -> None:
    columns = ("name", "seconds", "nats_per_character", "runs", "ratio")
    result = Result("time-to-loss", columns, dry_run=DRY)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _measure(find_text(), Path(folder), result)
        except NotRun as reason:
            result.not_run("time-to-loss", str(reason))
    result.show()
    print("ratio: our seconds over the row's, of medians")


def _measure(text: Path, folder: Path, result: Result) -> None:
    result.settings(text=text.name, prepare_seconds=prepare(text, folder))
    turns = list(TURNS)
    try:
        peer(["prepare", str(folder / "nanogpt"), str(text)])
    except NotRun as reason:
        result.not_run("nanoGPT", str(reason))
        turns = [name for name in turns if name == "lit-llm"]
    runs: dict[str, list[Run]] = {name: [] for name in turns}
    for number, name in enumerate(turns):
        if name == "nanoGPT":
            runs[name].append(run_nanogpt(text, folder / "nanogpt"))
        else:
            runs[name].append(run_ours(text, folder, f"run-{number}", *SHORT))
    if "nanoGPT" in runs:
        reached = [r.seconds if r.nats <= GOAL or DRY else math.inf for r in runs["lit-llm"]]
        (theirs,) = runs["nanoGPT"]
        result.bar("to-1.88", [seconds / theirs.seconds for seconds in reached])
    for name, done in runs.items():
        seconds = median(run.seconds for run in done)
        result.add(
            name=name,
            seconds=seconds,
            nats_per_character=median(run.nats for run in done),
            runs=len(done),
            ratio=median(run.seconds for run in runs["lit-llm"]) / seconds,
            all_seconds=[run.seconds for run in done],
            all_nats=[run.nats for run in done],
        )


def find_text() -> Path:
    """The text of SHAKESPEARE or of the checkout.

    Raises:
        NotRun: there is none.
    """
    checkout = Path(os.environ.get("NANOGPT") or ".", nanogpt_shakespeare.DATA, "input.txt")
    text = Path(os.environ.get("SHAKESPEARE") or checkout)
    if not text.is_file():
        raise NotRun(f"{text} is not there: SHAKESPEARE=path of tinyshakespeare's input.txt")
    return text.resolve()


# -- ours ------------------------------------------------------------------------------------------


def prepare(text: Path, folder: Path, recipe: str = RECIPE) -> float:
    """Let `cli.py prepare` learn the characters and write the shards; its seconds."""
    before = perf_counter()
    finish([sys.executable, "cli.py", "prepare", *data(text, folder, recipe)])
    return perf_counter() - before


def run_ours(text: Path, folder: Path, name: str, *options: str, recipe: str = RECIPE) -> Run:
    """A run of `cli.py fit`, scored."""
    where = [f"--runs_dir={folder}", f"--run={name}"]
    before = perf_counter()
    finish([sys.executable, "cli.py", "fit", *data(text, folder, recipe), *where, *options])
    return Run(perf_counter() - before, score(folder / name, text))


def data(text: Path, folder: Path, recipe: str) -> list[str]:
    return ["-c", recipe, f"--data.corpus.path={text}", f"--data.cache_dir={folder}/cache"]


def score(run: Path, text: Path) -> float:
    """Nats per character of the last tenth of the text."""
    gpt, bundle = load_model(resolve(run))
    assert bundle.tokenizer is not None
    head, tail = cut(text.read_text(encoding="utf-8"))
    before = bundle.tokenizer.encode(head[-1])[-1:]
    ids = [*before, *bundle.tokenizer.encode(tail)]
    return summed_nats(gpt, ids, bundle.config.max_seq_len) / len(tail)


# -- nanoGPT's -------------------------------------------------------------------------------------


def run_nanogpt(text: Path, folder: Path) -> Run:
    """Its command, scored."""
    before = perf_counter()
    finish(nanogpt_shakespeare.command(PEERS, NANOGPT_STEPS), folder)
    seconds = perf_counter() - before
    return Run(seconds, float(peer(["score", str(folder), str(text)]).split()[-1]))


def peer(arguments: list[str]) -> str:
    """What nanoGPT's side prints."""
    if not PEERS.exists():
        raise NotRun(f"{PEERS} is not there: make bench installs it")
    return finish([str(PEERS), "-m", "benchmarks.peers.nanogpt_shakespeare", *arguments])


def finish(command: list[str], folder: Path = ROOT) -> str:
    """Run a command to its end; what it prints.

    Raises:
        NotRun: it failed.
    """
    environment = {**os.environ, "GOMP_SPINCOUNT": "5000"}  # what cli.py sets for itself, for both
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise NotRun(last_words(done.stderr or done.stdout))
    return done.stdout


if __name__ == "__main__":
    main()
