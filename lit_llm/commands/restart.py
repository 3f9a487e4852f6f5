"""Restarts by torchrun: the processes of each attempt meet in a place of their own.

`torchrun --max-restarts` keeps one key-value store for all attempts, and torch looks for the
others' addresses under the same keys in each. After a restart a process finds those of its
predecessors, and ends with "Connection refused" (https://github.com/pytorch/pytorch/issues/135712;
torch 2.13 still does). No environment variable numbers the attempts alike on all nodes, so the
first process invents a name for the attempt and tells it to those that are alive.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

from torch.distributed import PrefixStore, Store

# The package has a function of the same name in this module's place.
rendezvous = import_module("torch.distributed.rendezvous")

POLL_SECONDS = 0.05


def meet_afresh() -> None:
    """Let every later init_process_group under torchrun use a store of this attempt alone."""
    handlers = rendezvous._rendezvous_handlers  # no public way replaces the handler of env://
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0" or handlers["env"] is _handler:
        return
    handlers["env"] = _handler


def _handler(url: str, timeout: timedelta, **kwargs: Any) -> Iterator[tuple[Store, int, int]]:
    for store, rank, size in rendezvous._env_rendezvous_handler(url, timeout, **kwargs):
        name = name_of_attempt(store, rank, size, timeout)
        yield PrefixStore(f"attempt-{name}", store), rank, size


def name_of_attempt(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """Agree on a name with the processes that are alive.

    Every process leaves a word of its own under its rank and waits for an answer to that word.
    The first one answers every word it finds, also those of the dead, until all have their name.

    Args:
        store: holds whatever earlier attempts left in it
        rank: of this process
        size: number of processes
        timeout: how long to wait for the others

    Raises:
        RuntimeError: the others did not come.
    """
    name = uuid.uuid4().hex
    if rank != 0:
        store.set(f"word-{rank}", name)
        store.wait([f"answer-{name}"], timeout)
        name = store.get(f"answer-{name}").decode()
        store.add(f"there-{name}", 1)
        return name
    until = time.monotonic() + timeout.total_seconds()
    answered: set[str] = set()
    while store.add(f"there-{name}", 0) < size - 1:
        for word in (f"word-{other}" for other in range(1, size)):
            if store.check([word]) and (text := store.get(word).decode()) not in answered:
                store.set(f"answer-{text}", name)
                answered.add(text)
        if time.monotonic() > until:
            raise RuntimeError(
                f"timed out: of {size} processes not all came within {timeout.total_seconds()} s"
            )
        time.sleep(POLL_SECONDS)
    return name
