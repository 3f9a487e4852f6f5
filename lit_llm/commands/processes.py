"""The processes of a run on several devices: which is the first, and which of them speaks.

Imports nothing heavy: an error may be all there is to say.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping

from lit_llm.commands.secrets import redact_text

PATIENCE_SECONDS = 10  # for the first process to fail too; imports differ by a second or two


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process in its run, as torchrun, SLURM or Lightning gave it."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # a shell of srun's passes on its own
        if name in environment:
            return int(environment[name])
    return 0


def is_first_process() -> bool:
    """Whether this is the process that tidies up; others may be started by it or beside it."""
    return rank() == 0


def say(line: str) -> None:
    """Print a line for the user, once for all processes; nothing if it is empty."""
    if line and is_first_process():
        print(line, file=sys.stderr, flush=True)


def exit_with_error(text: str) -> None:
    """Print an error and exit with 2, once for all processes that fail alike.

    What a user did wrong is found by every process. The first one says it; then torchrun, or
    whatever has started them, ends the others by SIGTERM. One that is still there after a while
    has failed alone, as on a node that lacks a file, and says so.
    """
    if not is_first_process():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(2))
        started_by, until = os.getppid(), time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            if os.getppid() != started_by:  # it was the first process, and is gone
                os._exit(2)
            time.sleep(0.1)
        text = f"process {rank()}: {text}"
    print(f"error: {redact_text(text)}", file=sys.stderr)
    sys.exit(2)
