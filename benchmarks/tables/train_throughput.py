"""Tokens per second of training, beside nanoGPT, litgpt and transformers.

    (a)   6 layers, width 384, rows of 256 tokens, a vocabulary of 4096
    (b)   gpt-124m, a row of 1024 tokens

Ours is `cli.py fit` with the callbacks that it has by default; a peer is a bare loop around its
network (benchmarks/peers/train.py), and so is our own network beside it, to show what the Trainer
costs. Every peer is first tried in each precision for some steps, and its fastest takes part: of
those whose validation loss after equal tokens is within 0.01 of float32's, and ours has to be so
too. At (b) only the two fastest of (a) are tried. All take turns, so that a ratio is of one minute.

    COMPILED=1 python -m benchmarks.tables.train_throughput

tries torch.compile on the peers too, which takes minutes; without it nobody is compiled.
"""

from __future__ import annotations

import json
import os
import statistics
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.floor import matmul_flops
from benchmarks.result import Result
from benchmarks.rounds import PEERS, ROUNDS, Contender, NotRun, contenders, ratios, take_turns
from lit_llm.commands.precision import auto_precision
from lit_llm.model.config import GPTConfig
from lit_llm.model.size import size

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
COMPILED = os.environ.get("COMPILED") == "1"
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
NAMES = ("nanogpt", "litgpt", "transformers")
BARE = "our bare loop"
WITHIN = 0.01  # nats of float32's loss
LEARN = {"steps": 2, "rows": 2} if DRY else {"steps": 40, "rows": 4}

# sizes of the peers' loop, and what of them `fit` is told by a file
TINY = {"n_layer": 2, "n_head": 2, "d_model": 48, "d_ff": 128, "vocabulary": 512, "seq_len": 32}
A = {"n_layer": 6, "n_head": 6, "d_model": 384, "d_ff": 1024, "vocabulary": 4096, "seq_len": 256}
B = {
    "n_layer": 12,
    "n_head": 12,
    "d_model": 768,
    "d_ff": 2048,
    "vocabulary": 50304,
    "seq_len": 1024,
}
WARMUP = 1 if DRY else 20
PROBED = 1 if DRY else 3
SETTINGS: dict[str, dict[str, Any]] = {
    "a": {"sizes": {**(TINY if DRY else A), "rows": 2 if DRY else 8}, "warmup": WARMUP, "steps": 4},
    "b": {
        "sizes": {**(TINY if DRY else B), "rows": 1},
        "warmup": min(WARMUP, 3),  # of seconds each; the rounds show whether the time is flat
        "steps": 1,
    },
}
# What `fit` sets for itself; with it, peers too are not slowed down by whatever else runs here.
THREADS = {"GOMP_SPINCOUNT": "1000"}


Mode = tuple[str, bool]
"""Precision, and whether the network is compiled."""


def main() -> None:
    columns = ("name", "precision", "compiled", "tokens_per_second", "ratio", "share_of_peak")
    result = Result("train-throughput", columns, dry_run=DRY)
    learning: dict[str, set[str]] = {}
    modes = [(precision, compiled) for compiled in (False, True) for precision in PRECISIONS]
    worth_trying = {name: modes if COMPILED else modes[: len(PRECISIONS)] for name in NAMES}
    for part, setting in SETTINGS.items():
        _measure(part, setting, result, learning, worth_trying)
    result.show()
    print(
        "ratio: ours over the row, median of the rounds; share_of_peak: of the measured matmul rate"
    )


def _measure(
    part: str,
    setting: dict[str, Any],
    result: Result,
    learning: dict[str, set[str]],
    worth_trying: dict[str, list[Mode]],
) -> None:
    sizes, not_run = setting["sizes"], result.not_run
    ours: Mode = (auto_precision("cpu", sizes["d_model"])[0], False)
    makers = {name: (lambda name=name: start_peer(name, sizes)) for name in NAMES}
    with contenders(makers, lambda name, why: not_run(f"({part}) {name}", why)) as peers:
        speeds = {}
        for name, peer in peers.items():
            try:
                if "peers" not in learning:
                    learning["peers"] = precisions_that_learn(peer, "a peer", result)
                speeds[name] = probe(peer, sizes, worth_trying[name])
            except NotRun as reason:
                not_run(f"({part}) {name}", str(reason))
        result.settings(**{f"({part}) tried, tokens/s": _words(speeds)})
        for name, found in speeds.items():  # at (b) only what was among the two fastest, and ours
            fastest = sorted(found, key=found.__getitem__, reverse=True)[:2]
            worth_trying[name] = list({*fastest, ours})
        taking_part = {}
        for name, found in speeds.items():
            modes = [mode for mode in found if mode[0] in learning["peers"]] or [("32-true", False)]
            taking_part[name] = (peers[name], max(modes, key=found.__getitem__))
        same = max(speeds, key=lambda name: speeds[name][ours], default=None)
        makers = {
            "lit-llm": lambda: start_fit(part, sizes, ours[0]),
            BARE: lambda: Contender(["-m", "benchmarks.our_loop", json.dumps(sizes)], env=THREADS),
        }
        if same is not None and taking_part[same][1] != ours:
            makers[same] = lambda: start_peer(same, sizes)
        with contenders(makers, lambda name, why: not_run(f"({part}) {name}", why)) as others:
            if same in others:
                taking_part[f"{same}, our mode"] = (others.pop(same), ours)
            if BARE in others:
                if "ours" not in learning:
                    bare, tried = others[BARE], ("32-true", ours[0])
                    learning["ours"] = precisions_that_learn(bare, "ours", result, tried)
                taking_part[BARE] = (others.pop(BARE), ours)
            for peer, mode in taking_part.values():
                use(peer, sizes, mode)
            turning = {name: peer for name, (peer, _) in taking_part.items()} | others
            modes = {name: mode for name, (_, mode) in taking_part.items()} | {"lit-llm": ours}
            _take_turns(part, setting, result, turning, modes)
            if ours[0] not in learning.get("ours", ()):
                not_run(f"({part}) lit-llm", f"{ours[0]} was not shown to learn as float32 does")
            _bars(part, result, modes)


def _take_turns(
    part: str,
    setting: dict[str, Any],
    result: Result,
    turning: dict[str, Contender],
    modes: dict[str, Mode],
) -> None:
    """Measure, and hold the ratios against the bars."""
    sizes, steps = setting["sizes"], setting["steps"]
    tokens = sizes["rows"] * sizes["seq_len"] * steps

    def not_run(name: str, reason: str) -> None:
        result.not_run(f"({part}) {name}", reason)

    def turns(steps: int) -> dict[str, Callable[[], float]]:
        return {
            name: (lambda contender=contender: contender.ask("turn", steps=steps)["seconds"])
            for name, contender in turning.items()
        }

    take_turns(turns(setting["warmup"]), 1, not_run)
    seconds = take_turns(turns(steps), 2 if DRY else ROUNDS, not_run)
    peaks = {"bf16": matmul_flops(torch.bfloat16), "32": matmul_flops(torch.float32)}
    flops = size(network(sizes)).flops_per_token
    ratio = (
        {n: ratios(s, seconds["lit-llm"]) for n, s in seconds.items()}
        if "lit-llm" in seconds
        else {}
    )
    for name, times in seconds.items():
        precision, compiled = modes[name]
        speed = tokens / statistics.median(times)
        result.add(
            name=f"({part}) {name}",
            precision=precision,
            compiled=compiled,
            tokens_per_second=speed,
            ratio=statistics.median(ratio[name]) if ratio else None,
            share_of_peak=speed * flops / peaks[precision.split("-")[0]],
            seconds=times,
        )


def _bars(part: str, result: Result, modes: dict[str, Mode]) -> None:
    """Hold our ratios against the bars; with a peer missing, nobody knows the best one."""
    of_part = f"({part}) "
    if any(missing["name"].startswith(of_part) for missing in result.values["not_run"]):
        return
    seconds = {
        row["name"].removeprefix(of_part): row["seconds"]
        for row in result.values["rows"]
        if row["name"].startswith(of_part)
    }
    mine = seconds.pop("lit-llm")
    del seconds[BARE]
    ratio = {name: ratios(times, mine) for name, times in seconds.items()}
    same = [name for name in ratio if modes[name] == modes["lit-llm"]]
    for bar, names in (("best-mode", list(ratio)), ("same-mode", same)):
        result.bar(f"{part}-{bar}", [min(r) for r in zip(*(ratio[n] for n in names), strict=True)])


# -- contenders ------------------------------------------------------------------------------------


def network(sizes: dict[str, int]) -> GPTConfig:
    """The network as lit-llm describes it."""
    return GPTConfig(
        n_layer=sizes["n_layer"],
        n_head=sizes["n_head"],
        d_model=sizes["d_model"],
        d_ff=sizes["d_ff"],
        vocab_size=sizes["vocabulary"],
        max_seq_len=sizes["seq_len"],
        tie_embeddings=True,
    )


def start_fit(part: str, sizes: dict[str, int], precision: str) -> Contender:
    """A run of `cli.py fit` on random tokens, one document in each row."""
    folder = tempfile.mkdtemp(prefix="lit-llm-bench-")  # nothing is saved in so few steps
    arguments = [
        *("-m", "benchmarks.fit_in_turns"),
        *fit_arguments(sizes, precision),
        "--trainer.max_steps=100000",
        f"--runs_dir={folder}",
        "--run=measured",
    ]
    return Contender(arguments, env=THREADS)


def fit_arguments(sizes: dict[str, int], precision: str) -> list[str]:
    """Of `fit`: the network and its batch."""
    files = (
        "configs/optim/adamw.yaml",
        "configs/trainer/cpu.yaml",
        "benchmarks/random-tokens.yaml",
    )
    gpt = {name: sizes[name] for name in ("n_layer", "n_head", "d_model", "d_ff")}
    return [
        *(part for file in files for part in ("-c", file)),
        *(f"--model.gpt.{name}={value}" for name, value in gpt.items()),
        "--model.gpt.tie_embeddings=true",
        f"--data.vocabulary={sizes['vocabulary']}",
        f"--data.seq_len={sizes['seq_len']}",
        f"--data.global_batch_size={sizes['rows']}",
        "--data.documents=1",
        f"--trainer.precision={precision}",
    ]


def start_peer(name: str, sizes: dict[str, int]) -> Contender:
    """A peer of equal size; it is told later how to compute."""
    return Contender(
        ["-m", "benchmarks.peers.train", name, json.dumps(sizes)], python=PEERS, env=THREADS
    )


def use(peer: Contender, sizes: dict[str, int], mode: Mode) -> None:
    """Choose a peer's mode, and make sure that it has as much to compute as we have."""
    counts = peer.ask("use", mode=mode[0], compile=mode[1])
    ours = size(network(sizes))
    inner = ours.parameters - sizes["vocabulary"] * sizes["d_model"]  # the tied table
    for name, theirs, mine in (
        ("parameters without tables", counts["inner_parameters"], inner),
        ("FLOPs per token", counts["flops_per_token"], ours.flops_per_token),
    ):
        assert DRY or abs(theirs / mine - 1) < 0.01, f"{name}: {theirs:,} and {mine:,}"


def probe(peer: Contender, sizes: dict[str, int], modes: list[Mode]) -> dict[Mode, float]:
    """Tokens/s in each mode, after a step that does not count."""
    speeds = {}
    for mode in modes:
        use(peer, sizes, mode)
        peer.ask("turn", steps=1)
        seconds = peer.ask("turn", steps=PROBED)["seconds"]
        speeds[mode] = PROBED * sizes["rows"] * sizes["seq_len"] / seconds
    return speeds


def precisions_that_learn(
    peer: Contender, name: str, result: Result, precisions: Sequence[str] = PRECISIONS
) -> set[str]:
    """Those whose loss on held-out text is within 0.01 of float32's after equal tokens.

    The text is the source code of Python's standard library, a byte a token.
    """
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]:
            file.write(path.read_bytes())
        file.flush()
        losses = {}
        for precision in dict.fromkeys(precisions):
            peer.ask("use", mode=precision)
            losses[precision] = peer.ask("learn", path=file.name, **LEARN)
    result.settings(**{f"losses after equal tokens, {name}": losses}, learning=LEARN)
    return {p for p, loss in losses.items() if loss - losses["32-true"] <= WITHIN}


def _words(speeds: dict[str, dict[Mode, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {
            precision + ", compiled" * compiled: speed
            for (precision, compiled), speed in found.items()
        }
        for name, found in speeds.items()
    }


if __name__ == "__main__":
    main()
