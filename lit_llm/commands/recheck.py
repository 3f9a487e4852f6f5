"""Is the loss that `validate` finds the one that the run logged when it saved the checkpoint?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_llm.callbacks.csv_log import read_rows
from lit_llm.checkpoint.bundle import read_meta

LOSS = "val/loss"
EQUAL = 1e-6
"""Relative difference of two float32 sums of the same numbers, added in another order."""


def beside_the_log(checkpoint: Path, metrics: Mapping[str, Any]) -> str | None:
    """Compare a validation with what the checkpoint's run logged at the same step.

    Returns:
        A line that says whether they are equal; None if the checkpoint lies in no run's folder.
    """
    log = checkpoint.parent / "metrics.csv"
    if LOSS not in metrics or not log.is_file():
        return None
    step = read_meta(checkpoint)["step"]
    logged = [
        float(row[LOSS]) for row in read_rows(log)[1] if int(row["step"]) == step and row.get(LOSS)
    ]
    if not logged:
        return f"the run logged no {LOSS} at step {step}"
    found, there = float(metrics[LOSS]), logged[-1]
    if abs(found - there) <= EQUAL * abs(there):
        return f"{LOSS} {found:.7g} is what the run logged at step {step}"
    return (
        f"{LOSS} {found:.7g}, but the run logged {there:.7g} at step {step}: other data, limits, "
        "precision or devices than the run's"
    )
