"""A callback that ends a run after its first step, so that the process's time is that step's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L


class EndAfterFirstStep(L.Callback):
    """Ends the process at once, and leaves the file FIRST_STEP as a sign that it came so far."""

    def on_train_batch_end(self, *_: Any) -> None:
        Path(os.environ["FIRST_STEP"]).touch()
        os._exit(0)
