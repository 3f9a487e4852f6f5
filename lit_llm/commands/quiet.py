"""What libraries print that says nothing about the run."""

from __future__ import annotations

import logging
import re
import warnings

# Each process says where it stands, then a frame of hyphens says that all have come.
DISTRIBUTED = ("fabric.utilities.distributed", "fabric.utilities.rank_zero")
NOISE = re.compile(
    r"(GPU|TPU|HPU) available|💡 Tip|(\[rank: \d+\] )?Seed set to|"
    r"Initializing distributed|-{100}\ndistributed_backend"
)


def quiet_libraries() -> None:
    """Leave out advice and advertising of libraries that says nothing about the run."""
    for message in (
        ".*does not have many workers.*",
        ".*recommended to use `self.log.*sync_dist=True.*",  # torchmetrics has done it
        ".*LightningCLI's args parameter.*",
        ".*overridden `(on_before_batch|transfer_batch)_.*` in `LightningModule`.*",  # it is meant
        ".*isinstance.treespec, LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", *DISTRIBUTED):
        logging.getLogger(f"lightning.{name}").addFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    return NOISE.match(record.getMessage()) is None
