"""The report of a run: report.html and report.png, made of what lies in its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from lit_llm.callbacks.csv_log import read_rows
from lit_llm.callbacks.curves import draw
from lit_llm.callbacks.environment import environment
from lit_llm.callbacks.evaluations import EVALUATION_FILE, read_evaluations
from lit_llm.callbacks.page import page, write_page
from lit_llm.callbacks.samples import SAMPLES_FILE, read_samples

CARD_FILE = "data_card.json"
ENVIRONMENT_FILE = "environment.json"
SESSIONS_FILE = "sessions.jsonl"


def write_report(run_dir: Path) -> Path:
    """Draw a run again from its folder; needs neither the data nor the model.

    Args:
        run_dir: holds metrics.csv; samples.jsonl, evaluation.json, data_card.json,
            environment.json and config.yaml are shown where they exist

    Returns:
        Path of report.html; report.png lies beside it.

    Raises:
        ValueError: the folder has no metrics.csv with rows, or its evaluation.json is no such file.
    """
    path = run_dir / "metrics.csv"
    rows = read_rows(path)[1] if path.exists() else []
    if not rows:
        raise ValueError(
            f"{run_dir} has no metrics.csv with rows, so there is nothing to report: give a run's "
            "folder, such as checkpoints/quickstart/pretrain"
        )
    png = draw(rows)
    (run_dir / "report.png").write_bytes(png)
    config = run_dir / "config.yaml"
    text = page(
        name="/".join(run_dir.absolute().parts[-2:]),
        rows=rows,
        samples=read_samples(run_dir / SAMPLES_FILE),
        evaluated=read_evaluations(run_dir / EVALUATION_FILE),
        card=_read_json(run_dir / CARD_FILE),
        environment=_read_json(run_dir / ENVIRONMENT_FILE),
        config=config.read_text(encoding="utf-8") if config.exists() else "",
        png=png,
    )
    write_page(run_dir / "report.html", text)
    return run_dir / "report.html"


class RunReport(L.Callback):
    """Writes the report when training ends, and when it breaks off after something was logged.

    A report that cannot be drawn never costs a run: it warns. At the start of training the data
    card and the environment are put into the run folder, for the report and for whoever reads the
    folder in a year; environment.json has the latest session's, sessions.jsonl those of all.

    Args:
        command_line: what was typed, without its secrets
    """

    def __init__(self, command_line: Sequence[str] = ()) -> None:
        self.command_line = command_line

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        run_dir = Path(trainer.default_root_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        about = environment(trainer, self.command_line)
        card = trainer.datamodule.card  # type: ignore[attr-defined]
        for name, value in ((CARD_FILE, card), (ENVIRONMENT_FILE, about)):
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            (run_dir / name).write_text(text + "\n", encoding="utf-8")
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        session = {"began": began, "step": trainer.global_step, **about}
        with (run_dir / SESSIONS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(session, ensure_ascii=False, default=str) + "\n")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if trainer.state.fn == "fit":
            self._report(trainer)

    def _report(self, trainer: L.Trainer) -> None:
        run_dir = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not (run_dir / "metrics.csv").exists():
            return
        try:
            path = write_report(run_dir)
        except Exception as error:  # whatever it is, the weights are worth more than the picture
            rank_zero_warn(f"no report: {type(error).__name__}: {error}")
        else:
            rank_zero_info(f"report: {path}")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
