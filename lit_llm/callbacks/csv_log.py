"""metrics.csv in the run folder: one curve however often the run was interrupted.

Lightning's CSVLogger deletes the earlier metrics when a run is resumed into its folder.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class CSVLog(Logger):
    """Appends metrics as rows to `metrics.csv`.

    A row is what was logged at one step in one go: training and validation write separate rows, and
    a cell is empty where its row has no such metric. Needs the callback `Throughput`, which
    says where a run begins and fills the columns `tokens` and `seconds`. Hyperparameters are not
    written: the run folder's config.yaml has them.

    Args:
        save_dir: the run folder
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._begun = False
        self._columns: list[str] = []
        self._step = 0
        self._pending: dict[str, float] = {}

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Prepare for the steps after `step`, before which a resumed run has rows already.

        Rows of later steps come from a session that got further than its last checkpoint: they
        are dropped, for these steps are made again. A run from step 0 moves an older run's file
        to metrics-1.csv, metrics-2.csv, ...
        """
        self._begun = True
        if not self.path.exists():
            return
        if step == 0:
            move_aside(self.path)
            return
        self._columns, rows = read_rows(self.path)
        self._rewrite([row for row in rows if int(row["step"]) <= step])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Collect metrics of one step; `save` writes them.

        Raises:
            ValueError: training logs but `begin` was never called.
        """
        if not self._begun:  # validate and test: one point is no curve
            if any(name.startswith("train/") for name in metrics):
                raise ValueError(
                    "CSVLog does not know where this run begins: put the callback "
                    "lit_llm.callbacks.Throughput into trainer.callbacks too"
                )
            return
        assert step is not None, "a row needs its step"
        if step != self._step:
            self.save()
        self._step = step
        self._pending.update(metrics)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged; Lightning calls this at the end of each log step."""
        if not self._pending:
            return
        row = {"step": str(self._step)} | {k: _text(v) for k, v in self._pending.items()}
        self._pending = {}
        known = set(self._columns)
        if new := [name for name in row if name not in known]:
            rows = read_rows(self.path)[1] if self.path.exists() else []
            self._columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".tmp-{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def move_aside(path: Path) -> None:
    """Give an older run's file the first free name of metrics-1.csv, metrics-2.csv, ..."""
    names = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in count(1))
    path.rename(next(name for name in names if not name.exists()))


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a metrics.csv.

    A last line without a line end was cut off when the process was killed; it is left out.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    reader = csv.DictReader(line for line in lines if line.endswith("\n"))
    return list(reader.fieldnames or []), list(reader)


def _text(value: float) -> str:
    # 7 digits are what float32 holds.
    return str(value) if isinstance(value, int) else f"{float(value):.7g}"
