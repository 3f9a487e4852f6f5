"""Going back: a run that has lost its way is built anew and goes on from its last checkpoint."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from lit_llm.callbacks.nan_guard import NotFinite
from lit_llm.commands.processes import say
from lit_llm.training.guards import Rewind


def rewinding(start: Callable[[list[str]], object]) -> None:
    """Run, and run again from the newest checkpoint as often as the run asks for that.

    All processes of a run go back together and stay connected. Whatever was damaged in memory is
    gone with the objects of the first attempt: only the disk is believed. An attempt that has saved
    nothing yet is made again from where it began.

    Args:
        start: makes a run from beginning to end, given further flags

    Raises:
        NotFinite: the run went back too often without getting any further.
    """
    rewinds, flags = 0, list[str]()
    while True:
        try:
            start(flags)
            return
        except Rewind as rewind:
            reason, progress, limit = str(rewind), rewind.progress, rewind.limit
            saved = rewind.saved
        # Behind the except: until here the exception's frames have kept the network alive.
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        rewinds = 1 if progress else rewinds + 1
        if rewinds > limit:
            raise NotFinite(
                f"{reason}, and so it was after going back {limit} times.\nThe newest checkpoint "
                "is good; continue from it with a lower learning rate, a longer warmup, gradient "
                "clipping or other hardware"
            )
        if saved or "last" in flags:
            where, flags = "the newest checkpoint", ["--ckpt_path", "last"]
        else:
            where, flags = "where it started", []
        say(f"{reason}: going back to {where}")
        # What the first attempt was to overwrite is this very run by now.
        flags += ["--overwrite", "false"]
