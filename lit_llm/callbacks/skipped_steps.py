"""skipped_steps.jsonl in the run folder: the steps that went wrong, and which samples they held.

One line each:

    {"step": 812, "reason": "loss", "loss": null, "grad_norm": null, "action": "skipped",
     "over": [812], "samples": [[6488, "corpus", 90312], ...]}

`samples` are position in the run, name of the corpus and row in it. JSON knows no NaN: what is not
finite is null. Lines are only added: a run that was killed makes its steps again, and a line that
is there already is not written twice.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

NAME = "skipped_steps.jsonl"

Action = Literal["skipped", "warned", "stopped", "rewound"]


class SkippedSteps:
    """The file of one run; the first process writes it."""

    def __init__(self, trainer: L.Trainer) -> None:
        self.path = Path(trainer.default_root_dir) / NAME
        self._trainer = trainer

    def add(
        self,
        step: int,
        reason: str,
        action: Action,
        *,
        loss: float = math.nan,
        grad_norm: float = math.nan,
        over: Sequence[int] = (),
    ) -> None:
        """Write a line, and see it onto the disk; every process has to call this.

        Args:
            step: counted from 1
            reason: "loss", "gradient", "parameter NAME" or "spike"
            action: what was done about it
            loss: of the step
            grad_norm: of the step
            over: steps that change no weight because of this line, now or when they come again

        Raises:
            OSError: the line could not be written, and without it a rewind would come back to the
                same steps for ever. All processes raise it. Other lines end no run.
        """
        error = None
        if self._trainer.is_global_zero:
            try:
                self._write(step, reason, action, loss, grad_norm, over)
            except OSError as failed:
                error = f"{self.path} does not take the line of step {step}: {failed}"
        if action == "rewound" and over:
            if error := self._trainer.strategy.broadcast(error):
                raise OSError(error)
        elif error:
            rank_zero_warn(error)

    def _write(
        self,
        step: int,
        reason: str,
        action: Action,
        loss: float,
        grad_norm: float,
        over: Sequence[int],
    ) -> None:
        data: Any = self._trainer.datamodule  # type: ignore[attr-defined]
        line = json.dumps(
            {
                "step": step,
                "reason": reason,
                "loss": loss if math.isfinite(loss) else None,
                "grad_norm": grad_norm if math.isfinite(grad_norm) else None,
                "action": action,
                "over": list(over),
                "samples": data.samples_of_step(step - 1),
            }
        )
        if line in self._lines():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A process that was killed may have left half a line; it must not spoil this one.
        begin = "" if self._ends_whole() else "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{begin}{line}\n")
            file.flush()
            os.fsync(file.fileno())

    def passed_over(self) -> frozenset[int]:
        """Steps that a rewind has decided to pass over; every process has to ask."""
        steps: list[int] = []
        if self._trainer.is_global_zero:
            for line in self._lines():
                entry = _parsed(line)
                if entry.get("action") == "rewound":
                    steps += entry["over"]
        return frozenset(self._trainer.strategy.broadcast(steps))

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        return self.path.read_text(encoding="utf-8").splitlines()

    def _ends_whole(self) -> bool:
        return not self.path.exists() or self.path.read_bytes()[-1:] in (b"\n", b"")


def _parsed(line: str) -> dict[str, Any]:
    """An entry; a line that was cut off when its process was killed is none."""
    try:
        return json.loads(line)
    except ValueError:
        return {}
