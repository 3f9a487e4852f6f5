"""A loader's worker: it ends with the process that it works for, and leaves signals to that."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import threading
import time

POLL_SECONDS = 1.0

DUMP_SIGNAL: int | None = getattr(signal, "SIGUSR2", None)
"""On it the processes of a run print the stacks of their threads; Windows has none."""


def dump_stacks_on_signal() -> None:
    """Print the stacks of all threads to standard error on DUMP_SIGNAL, whatever they do.

    The handler is one of C: no thread has to come back to Python for it.
    """
    if DUMP_SIGNAL is not None:
        # Lightning resets all handlers after a run, and to register twice does nothing.
        faulthandler.unregister(DUMP_SIGNAL)
        faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True)


def follow_parent(worker: int = 0) -> None:
    """Make this worker of a DataLoader depend on its parent alone; a `worker_init_fn`.

    Ctrl-C in a terminal, `timeout` and clusters send their signals to all processes of a group.
    The parent wants to finish its step then, and needs the worker for it: so a worker ends when
    its parent says so, by the queue or by SIGTERM, and when the parent is gone, even if it is
    busy.
    """
    process = multiprocessing.parent_process()
    assert process is not None
    assert process.pid is not None
    dump_stacks_on_signal()
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS: there PyTorch's handler of SIGTERM stays
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_watch, args=(process.pid,), name="follow", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        if hasattr(signal, "sigtimedwait"):
            got = signal.sigtimedwait({signal.SIGTERM}, POLL_SECONDS)
            if got is not None and got.si_pid == parent:
                os._exit(0)
        else:
            time.sleep(POLL_SECONDS)
    os._exit(1)
