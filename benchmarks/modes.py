"""In which precision, compiled or not, each contender is at its best."""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.result import Result
from benchmarks.rounds import Contender
from benchmarks.training import DRY, Mode, use

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")
WITHIN = 0.01  # nats of float32's loss
LEARN = {"steps": 2, "rows": 2} if DRY else {"steps": 40, "rows": 4}
CLOSE = 0.7
"""Share of the fastest peer's speed from which another may yet be the fastest: rounds of one
machine differ by less."""


def probe(
    peer: Contender, sizes: dict[str, int], modes: Sequence[Mode], steps: int
) -> dict[Mode, float]:
    """Tokens/s in each mode, after a step that does not count."""
    speeds = {}
    for mode in modes:
        use(peer, sizes, mode)
        speeds[mode] = trial(peer, sizes, steps)
    return speeds


def trial(contender: Contender, sizes: dict[str, int], steps: int) -> float:
    """Tokens/s in the mode that was chosen, after a step that does not count."""
    contender.ask("turn", steps=1)
    seconds = contender.ask("turn", steps=steps)["seconds"]
    return steps * sizes["rows"] * sizes["seq_len"] / seconds


def best(speeds: Mapping[Mode, float], learns: set[str]) -> Mode:
    """The fastest mode of those whose precision learns; float32 if there is none."""
    modes = [mode for mode in speeds if mode[0] in learns] or [("32-true", False)]
    return max(modes, key=lambda mode: speeds.get(mode, 0.0))


def finalists(speeds: Mapping[str, float]) -> set[str]:
    """Of the peers, by their best speed, those that may be the fastest."""
    fastest = max(speeds.values(), default=0.0)
    return {name for name, speed in speeds.items() if speed >= (0 if DRY else CLOSE) * fastest}


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


def in_words(speeds: dict[str, dict[Mode, float]]) -> dict[str, dict[str, float]]:
    """For the result: modes as texts."""
    return {
        name: {
            precision + ", compiled" * compiled: speed
            for (precision, compiled), speed in found.items()
        }
        for name, found in speeds.items()
    }
