"""prepare: the tokenizer and the shards of a recipe, without training.

Preparing needs neither PyTorch nor Lightning, and both take longer to import than a small corpus to
prepare. So a configuration whose other parts are plainly right is prepared without them
(`plain_keys`). Any other is read as `fit` reads it, which finds what is wrong and says it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from lit_llm.commands.parser import explained_errors, read
from lit_llm.commands.plain_keys import plain_data
from lit_llm.data.assemble import Prepared
from lit_llm.data.source import Source

HELP = ("-h", "--help", "--print_config")
STARTED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID")
"""What tells of other processes: who prepares is then the Trainer's business."""


def run(command: str, arguments: list[str]) -> None:
    """Run prepare; takes the same configuration as fit."""
    source = plain_source(arguments)
    if source is None:
        from lit_llm.commands.prepare_as_fit import prepare_as_fit

        show(prepare_as_fit(command, arguments))
        return
    with explained_errors(*read(arguments)):
        prepared = source.prepared(progress=True)
        if line := source.verify():
            print(line, file=sys.stderr)
    show(prepared.values())


def show(prepared: Iterable[Prepared]) -> None:
    """Print the data cards."""
    for one in prepared:
        print((one.folder / "card.md").read_text(encoding="utf-8"))


def plain_source(arguments: list[str]) -> Source | None:
    """What is to be prepared; None where only `fit`'s own parser can tell whether all is right."""
    names = [argument.partition("=")[0] for argument in arguments]
    if any(name.startswith(HELP) or name.endswith(".help") for name in names):
        return None
    if any(name in os.environ for name in STARTED):
        return None
    try:
        data = plain_data(*read(arguments))
        return None if data is None else Source(**data)
    except Exception:  # whatever it is, it is said better where all is known
        return None
