"""`cli.py fit` as a contender: trains a stretch of steps whenever it is asked to.

    python -m benchmarks.fit_in_turns -c configs/recipes/quickstart/pretrain.yaml ...

Everything is as `python cli.py fit ...` has it, the callbacks of a recipe included; one more stops
between two steps, answers with the seconds since the last request, and waits for the next one.
"""

from __future__ import annotations

import sys

from benchmarks.turns import Turns
from lit_llm.cli import main

turns: list[Turns] = []  # the one of this process, for the callback


if __name__ == "__main__":
    from benchmarks import fit_in_turns  # this file under the name that the callback knows

    fit_in_turns.turns.append(Turns())  # takes stdout before anything can print
    # No import of torch above: the command line sets first what torch reads when it is imported.
    main(["fit", *sys.argv[1:], "--trainer.callbacks+=benchmarks.in_turns.InTurns"])
