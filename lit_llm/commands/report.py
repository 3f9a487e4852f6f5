"""report: a run's report.html, drawn again from what its folder holds."""

from __future__ import annotations

from pathlib import Path


def run(command: str, arguments: list[str]) -> None:
    """Run report RUN_FOLDER."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ValueError("report takes the folder of one run: python cli.py report checkpoints/RUN")
    folder = Path(arguments[0])
    if not (folder / "metrics.csv").is_file():
        raise ValueError(f"{folder} is no run with metrics.csv: give a folder that fit has written")
    from lit_llm.callbacks.run_report import write_report

    print(write_report(folder))
