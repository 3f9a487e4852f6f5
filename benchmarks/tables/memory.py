"""Peak resident memory of training gpt-124m on one row of 1024 tokens, beside the peers.

Ours is `cli.py fit` with the callbacks that it has by default, in the precision that
`precision: auto` gives here; a peer is a bare loop in the same precision
(benchmarks/peers/train.py). Each is a process of its own and trains a few steps, one after
another: memory does not depend on who else runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmarks.result import Result
from benchmarks.rounds import Contender, NotRun
from benchmarks.training import (
    NAMES,
    SETTINGS,
    network,
    start_fit,
    start_peer,
    use,
)
from lit_llm.commands.precision import auto_precision
from lit_llm.model.size import size

DRY = os.environ.get("BENCH_DRY_RUN") == "1"
STEPS = 4  # the optimizer's state is there from the second on
SIZES = SETTINGS["b"]["sizes"]


def main() -> None:
    result = Result("memory", ("name", "peak_gb", "over_state_gb", "ratio"), dry_run=DRY)
    precision = auto_precision("cpu", SIZES["d_model"])[0]
    state = 16 * size(network(SIZES)).parameters  # weights, gradients, two moments in float32
    result.settings(precision=precision, sizes=SIZES, state_bytes=state)
    makers: dict[str, Callable[[], Contender]] = {
        "lit-llm": lambda: start_fit(SIZES, (precision, False)),
        **{name: (lambda name=name: start_peer(name, SIZES)) for name in NAMES},
    }
    peaks = {}
    for name, make in makers.items():
        try:
            peaks[name] = _peak(make, precision if name in NAMES else None)
        except NotRun as reason:
            result.not_run(name, str(reason))
    for name, peak in peaks.items():
        result.add(
            name=name,
            peak_gb=peak / 1e9,
            over_state_gb=(peak - state) / 1e9,
            ratio=peaks["lit-llm"] / peak if "lit-llm" in peaks else None,
            peak_bytes=peak,
        )
    if len(peaks) == len(makers):
        result.bar("rss", [peaks["lit-llm"] / min(peaks[name] for name in NAMES)])
    result.show()
    print(
        "over_state_gb: without weights, gradients and moments in float32; ratio: ours over the row"
    )


def _peak(make: Callable[[], Contender], precision: str | None) -> int:
    """Most bytes that a contender held; a peer is told the precision."""
    contender = make()
    try:
        if precision is not None:
            use(contender, SIZES, (precision, False))
        return contender.ask("turn", steps=STEPS)["peak_bytes"]
    finally:
        contender.close()


if __name__ == "__main__":
    main()
