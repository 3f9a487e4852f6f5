"""Several processes, one run: from one checkpoint on, and none waits for one that is gone."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import sys
import threading
import traceback
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info

GONE = (
    "another process of this run is gone or stuck (its own output says more, if it had time to): "
    "this one ends too.\nThe run can go on from its last checkpoint: start it again with "
    "--ckpt_path last"
)

# What gloo and NCCL say when a peer has died, or does not come within the strategy's timeout.
_LOST = re.compile(
    r"connection (closed|reset|refused)|broken pipe|timed out|timeout|socket|"
    r"remote process (exited|has terminated)|heartbeat|aborted|peer",
    re.IGNORECASE,
)
_RAISERS = ("DistBackendError", "DistNetworkError", "DistStoreError")


def lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process of the run has died or does not answer."""
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        by_group = type(link).__name__ in _RAISERS or "gloo" in text
        if isinstance(link, RuntimeError) and by_group and _LOST.search(text):
            return True
        link = link.__cause__ or link.__context__
    return False


class Together(L.Callback):
    """Watches over what the processes of a run have in common.

    - They start from the same checkpoint.
    - When one is lost, the others say where they are, and end.

    It goes first among the callbacks: when a process dies, torchrun sends SIGTERM to the others
    within 0.1 s, and what they have to say must be said before.

    Raises:
        ValueError: this process would start from another checkpoint than the first one.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        mine = str(trainer.ckpt_path)
        first = trainer.strategy.broadcast(mine)
        # The first has looked whether its choice is undamaged; the path of all is the first's.
        anew = "None" in (mine, first)
        if mine != first and (anew or not Path(first).is_dir()):
            raise ValueError(
                f"this process starts from checkpoint {mine}, the first one from {first}: all "
                "nodes must see the same runs_dir; put it on a file system that they share"
            )
        devices, nodes = trainer.num_devices, trainer.num_nodes
        where = "this machine" if nodes == 1 else f"each of {nodes} nodes"
        kind = trainer.strategy.root_device.type
        rank_zero_info(f"{trainer.world_size} processes: {devices} on {where}, on {kind}")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size == 1:
            return
        # NCCL's own watchdog aborts a process that waits too long, and raises nothing.
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Say what was going on here when another process was lost, and end at once.

        An ordinary end could hang: it would wait for the process that is gone.
        """
        if trainer.world_size == 1 or not lost_peer(exception):
            return
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        traceback.print_exception(exception)
        print(f"process {trainer.global_rank} stops: {GONE}", file=sys.stderr, flush=True)
        for logger in trainer.loggers:
            with contextlib.suppress(Exception):
                logger.finalize("failed")
        sys.stdout.flush()
        os._exit(1)
