"""What the battery adds to a run by YAML or flags."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightning as L


class RowLog(L.Callback):
    """Writes which rows each step was trained on to rows-<rank>.txt in the run folder."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        with Path(trainer.default_root_dir, f"rows-{trainer.global_rank}.txt").open("a") as file:
            for row in zip(*(tensor.cpu() for tensor in batch), strict=True):
                content = b"".join(tensor.numpy().tobytes() for tensor in row)
                digest = hashlib.blake2b(content, digest_size=8).hexdigest()
                file.write(f"{trainer.global_step} {digest}\n")


def rows_by_step(run: Path) -> dict[int, list[str]]:
    """The rows of each step, over all ranks and in a fixed order; a step made twice counts once."""
    rows: dict[int, list[str]] = {}
    for file in sorted(run.glob("rows-*.txt")):
        mine: dict[int, list[str]] = {}
        before = -1
        for line in file.read_text().splitlines():
            step, digest = int(line.split()[0]), line.split()[1]
            if step != before and step in mine:
                mine[step] = []
            mine.setdefault(step, []).append(digest)
            before = step
        for step, digests in mine.items():
            rows.setdefault(step, []).extend(digests)
    return {step: sorted(digests) for step, digests in rows.items()}
