"""Tokens per second of training, beside nanoGPT, litgpt and transformers.

    (a)   6 layers, width 384, rows of 256 tokens, a vocabulary of 4096
    (b)   gpt-124m, a row of 1024 tokens

Ours is `cli.py fit` with the callbacks that it has by default; a peer is a bare loop around its
network (benchmarks/peers/train.py), and at (a) so is our own network beside it, to show what the
Trainer costs. Every peer is first tried in each precision for some steps, and with torch.compile in
its fastest one; at (b) in its fastest way of (a), compiled and not, and in ours. It goes on in its
fastest, of those whose validation loss after equal tokens is within 0.01 of float32's. Ours has the
precision that `precision: auto` gives, which has to be so too, and `model.compile` if that is
faster. A peer that is then far behind another cannot be the best and is shown without rounds; all
others take turns, so that a ratio is of one minute. Without a C++ compiler nobody is compiled.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from benchmarks.floor import matmul_flops
from benchmarks.modes import (
    PRECISIONS,
    best,
    finalists,
    in_words,
    precisions_that_learn,
    probe,
    trial,
)
from benchmarks.result import Result
from benchmarks.rounds import ROUNDS, Contender, NotRun, contenders, ratios, take_turns
from benchmarks.training import (
    DRY,
    NAMES,
    SETTINGS,
    Mode,
    network,
    start_bare,
    start_fit,
    start_peer,
    use,
)
from lit_llm.commands.precision import auto_precision
from lit_llm.model.size import size

CAN_COMPILE = not DRY and shutil.which(os.environ.get("CXX", "g++")) is not None
OURS, BARE = "lit-llm", "our bare loop"
peak_flops = cache(matmul_flops)


def main() -> None:
    columns = ("name", "precision", "compiled", "tokens_per_second", "ratio", "share_of_peak")
    result = Result("train-throughput", columns, dry_run=DRY)
    result.settings(compiler=CAN_COMPILE)
    worth_trying = {name: list(PRECISIONS) for name in NAMES}
    learning: dict[str, set[str]] = {}
    for part in SETTINGS:
        Part(part, result, learning).measure(worth_trying)
    result.show()
    print(
        "ratio: ours over the row, median of the rounds; share_of_peak: of the measured matmul rate"
    )


class Part:
    """(a) or (b).

    Args:
        name: a or b
        result: where rows and bars go
        learning: precisions that learn, of "peers" and "ours"; found once for both parts
    """

    def __init__(self, name: str, result: Result, learning: dict[str, set[str]]) -> None:
        self.name, self.result, self.learning = name, result, learning
        self.setting: dict[str, Any] = SETTINGS[name]
        self.sizes: dict[str, int] = self.setting["sizes"]
        self.ours: Mode = (auto_precision("cpu", self.sizes["d_model"])[0], False)

    def measure(self, worth_trying: dict[str, list[str]]) -> None:
        """Select everybody's mode, take turns, hold the ratios against the bars.

        Args:
            worth_trying: precisions of each peer; left with those that the next part has to try
        """
        makers = {name: (lambda name=name: start_peer(name, self.sizes)) for name in NAMES}
        with self._our_fit() as ours, contenders(makers, self._not_run) as peers:
            speeds = self._probe(peers, worth_trying)
            mode_of = {name: best(found, self.learning["peers"]) for name, found in speeds.items()}
            top = {name: found.get(mode_of[name], 0.0) for name, found in speeds.items()}
            for name, mode in mode_of.items():
                worth_trying[name] = [mode[0]]
            best_ones = finalists(top)
            same = max(speeds, key=lambda name: speeds[name][self.ours], default=None)
            for name in sorted(top.keys() - best_ones):
                self._add(name, mode_of[name], top[name])
            turning = {name: (peers[name], mode_of[name]) for name in NAMES if name in best_ones}
            with self._others(None if same is None else (same, mode_of[same])) as others:
                turning |= ours | others
                modes = {name: mode for name, (_, mode) in turning.items()}
                seconds = self._take_turns(turning)
                self._bars(seconds, modes)

    @contextmanager
    def _our_fit(self) -> Iterator[dict[str, tuple[Contender, Mode]]]:
        """`cli.py fit`, compiled if that is faster; decides which mode is ours."""
        modes: list[Mode] = [
            (self.ours[0], compiled) for compiled in (False, True)[: 1 + CAN_COMPILE]
        ]
        names = {OURS + ", compiled" * mode[1]: mode for mode in modes}
        makers = {n: (lambda mode=mode: start_fit(self.sizes, mode)) for n, mode in names.items()}
        with contenders(makers, self._not_run) as there:
            speeds: dict[Mode, float] = {}
            for name, fit in there.items():
                try:
                    speeds[names[name]] = trial(fit, self.sizes, self.setting["probed"])
                except NotRun as reason:
                    self._not_run(name, str(reason))
            self.result.settings(
                **{f"({self.name}) ours tried, tokens/s": in_words({OURS: speeds})}
            )
            if not speeds:
                yield {}
                return
            self.ours = max(speeds, key=lambda mode: speeds[mode])
            chosen, *others = sorted(there, key=lambda name: names[name] != self.ours)
            for name in others:
                there[name].close()
            yield {OURS: (there[chosen], self.ours)}

    def _probe(
        self, peers: dict[str, Contender], worth_trying: dict[str, list[str]]
    ) -> dict[str, dict[Mode, float]]:
        """Each peer's speed in the precisions that are worth trying, compiled in the fastest."""
        speeds = {}
        steps = self.setting["probed"]
        for name, peer in peers.items():
            try:
                if "peers" not in self.learning:
                    self.learning["peers"] = precisions_that_learn(peer, "a peer", self.result)
                precisions = {*worth_trying[name], self.ours[0]}
                plain = [(precision, False) for precision in sorted(precisions)]
                found = probe(peer, self.sizes, plain, steps)
                if CAN_COMPILE:
                    fastest = best(found, self.learning["peers"])[0]
                    compiled = [(precision, True) for precision in {fastest, self.ours[0]}]
                    found |= probe(peer, self.sizes, compiled, steps)
                speeds[name] = found
            except NotRun as reason:
                self._not_run(name, str(reason))
        self.result.settings(**{f"({self.name}) tried, tokens/s": in_words(speeds)})
        return speeds

    @contextmanager
    def _others(
        self, fastest: tuple[str, Mode] | None
    ) -> Iterator[dict[str, tuple[Contender, Mode]]]:
        """Who is in our mode: our bare loop at (a), and the peer that is fastest in it.

        Args:
            fastest: that peer, and the mode in which it takes part anyhow
        """
        makers: dict[str, Callable[[], Contender]] = {}
        if "ours" not in self.learning:
            makers[BARE] = lambda: start_bare(self.sizes)
        if fastest is not None and fastest[1] != self.ours:
            name = fastest[0]
            makers[f"{name}, our mode"] = lambda: start_peer(name, self.sizes)
        with contenders(makers, self._not_run) as there:
            if BARE in there:
                tried = ("32-true", self.ours[0])
                found = precisions_that_learn(there[BARE], "ours", self.result, tried)
                self.learning["ours"] = found
            yield {name: (contender, self.ours) for name, contender in there.items()}

    def _take_turns(self, turning: dict[str, tuple[Contender, Mode]]) -> dict[str, list[float]]:
        """Seconds of each round, after a warm-up."""
        for name, (contender, mode) in turning.items():
            if name != OURS:
                use(contender, self.sizes, mode)

        def turns(steps: int) -> dict[str, Callable[[], float]]:
            return {
                name: (lambda contender=contender: contender.ask("turn", steps=steps)["seconds"])
                for name, (contender, _) in turning.items()
            }

        take_turns(turns(self.setting["warmup"]), 1, self._not_run)
        steps = self.setting["steps"]
        seconds = take_turns(turns(steps), 2 if DRY else ROUNDS, self._not_run)
        tokens = self.sizes["rows"] * self.sizes["seq_len"] * steps
        for name, times in seconds.items():
            ratio = ratios(times, seconds[OURS]) if OURS in seconds else None
            speed = tokens / statistics.median(times)
            self._add(name, turning[name][1], speed, ratio, seconds=times)
        return seconds

    def _add(
        self, name: str, mode: Mode, speed: float, ratio: list[float] | None = None, **more: Any
    ) -> None:
        peak = peak_flops(torch.bfloat16 if mode[0].startswith("bf16") else torch.float32)
        self.result.add(
            name=f"({self.name}) {name}",
            precision=mode[0],
            compiled=mode[1],
            tokens_per_second=speed,
            ratio=statistics.median(ratio) if ratio else None,
            share_of_peak=speed * size(network(self.sizes)).flops_per_token / peak,
            **more,
        )

    def _bars(self, seconds: dict[str, list[float]], modes: dict[str, Mode]) -> None:
        """Hold our ratios against the bars; with a peer missing, nobody knows the best one."""
        if self.ours[0] not in self.learning.get("ours", ()):
            self._not_run(OURS, f"{self.ours[0]} was not shown to learn as float32 does")
        missing = (one["name"] for one in self.result.values["not_run"])
        if any(name.startswith(f"({self.name}) ") for name in missing):
            return
        ratio = {
            name: ratios(times, seconds[OURS])
            for name, times in seconds.items()
            if name not in (OURS, BARE)
        }
        same = [name for name in ratio if modes[name] == self.ours]
        for bar, names in (("best-mode", list(ratio)), ("same-mode", same)):
            values = [min(r) for r in zip(*(ratio[n] for n in names), strict=True)]
            self.result.bar(f"{self.name}-{bar}", values)

    def _not_run(self, name: str, reason: str) -> None:
        self.result.not_run(f"({self.name}) {name}", reason)


if __name__ == "__main__":
    main()
