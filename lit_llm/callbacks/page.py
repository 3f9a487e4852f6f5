"""report.html: one file that shows a run to somebody who was not there, without a network."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from lit_llm.callbacks.curves import series
from lit_llm.callbacks.evaluations import evaluations
from lit_llm.callbacks.units import clock, short

_STYLE = """
:root { --accent: #2563eb; --ink: #1f2937; --grey: #6b7280; --line: #e5e7eb; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 40px 24px 80px; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; background: #fff; }
header p, .unit, figcaption { color: var(--grey); }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 17px; margin: 44px 0 12px; }
header p { margin: 2px 0 24px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; }
.numbers div { border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.numbers b { display: block; font-size: 21px; font-weight: 600; }
.numbers div:first-child b { color: var(--accent); }
.unit { font-size: 13px; }
figure { margin: 28px 0 0; } img { width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 7px 14px 7px 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 500; color: var(--grey); white-space: nowrap; width: 1%; }
td table td, td table th { padding: 3px 12px 3px 0; border: 0; }
.text { white-space: pre-wrap; } .prompt { color: var(--grey); }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--accent); }
pre { background: #f8fafc; border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  overflow-x: auto; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
"""


def page(
    name: str,
    rows: list[dict[str, str]],
    samples: list[dict[str, Any]],
    evaluated: list[dict[str, Any]],
    card: dict[str, Any],
    environment: dict[str, Any],
    config: str,
    png: bytes,
) -> str:
    """The whole document; every text that comes from data or configuration is escaped.

    Args:
        name: of the run
        rows: of metrics.csv
        samples: rows of samples.jsonl, the oldest first
        evaluated: entries of evaluation.json, the oldest first
        card: the data card
        environment: versions and device
        config: text of config.yaml; empty if there is none
        png: the curves
    """
    picture = base64.b64encode(png).decode()
    parts = [
        f"<header><h1>{escape(name)}</h1><p>training report</p></header>",
        _numbers(rows),
        f'<figure><img alt="Curves of the run: loss, learning rate, speed, gradient norm" '
        f'src="data:image/png;base64,{picture}"></figure>',
        _section("What it wrote", _samples(samples)),
        _section("Evaluation", evaluations(evaluated)),
        _section("Data", _table(card)),
        _section("Configuration", f"<pre>{escape(config)}</pre>" if config else ""),
        _section("Versions and device", _table(environment)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _numbers(rows: list[dict[str, str]]) -> str:
    """The numbers that one asks for first, best validation loss in front."""
    numbers: list[tuple[str, str]] = []
    steps, losses = series(rows, "val/loss")
    if losses:
        best = min(range(len(losses)), key=losses.__getitem__)
        numbers.append((f"{losses[best]:.3f}", f"best validation loss, step {steps[best]:,.0f}"))
    for key, label in (
        ("val/bits_per_byte", "validation bits per byte, last"),
        ("val/perplexity", "validation perplexity, last"),
        ("train/loss", "training loss, last"),
    ):
        if values := series(rows, key)[1]:
            numbers.append((f"{values[-1]:.3f}", label))
    if rows:
        numbers.append((f"{int(rows[-1]['step']):,}", "optimizer steps"))
    if tokens := series(rows, "tokens")[1]:
        numbers.append((short(tokens[-1]), "tokens seen"))
    if seconds := series(rows, "seconds")[1]:
        numbers.append((clock(seconds[-1]), "of training"))
    if speed := series(rows, "speed/tokens_per_second")[1]:
        numbers.append((short(median(speed)), "tokens per second, median"))
    if mfu := series(rows, "speed/mfu")[1]:
        numbers.append((f"{median(mfu):.1%}", "of the device's peak (MFU), median"))
    if memory := series(rows, "speed/peak_memory_gb")[1]:
        numbers.append((f"{max(memory):.3g} GB", "peak memory of a process"))
    boxes = (
        f'<div><b>{value}</b><span class="unit">{label}</span></div>' for value, label in numbers
    )
    return f'<div class="numbers">{"".join(boxes)}</div>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _samples(samples: list[dict[str, Any]]) -> str:
    """The newest look as a table, earlier ones folded away below it."""
    steps = sorted({sample["step"] for sample in samples}, reverse=True)
    tables = []
    for step in steps:
        cells = "".join(
            f'<tr><td class="text"><span class="prompt">{escape(sample["prompt"])}</span>'
            f"{escape(sample['text'])}</td></tr>"
            for sample in samples
            if sample["step"] == step
        )
        tables.append((step, f"<table>{cells}</table>"))
    if not tables:
        return ""
    (newest, table), *earlier = tables
    folded = "".join(
        f"<details><summary>step {step:,}</summary>{table}</details>" for step, table in earlier
    )
    return f'<p class="unit">step {newest:,}; prompts in grey</p>{table}{folded}'


def _table(values: dict[str, Any]) -> str:
    rows = (f"<tr><th>{escape(str(k))}</th><td>{_cell(v)}</td></tr>" for k, v in values.items())
    return f"<table>{''.join(rows)}</table>" if values else ""


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return _table(value)
    if isinstance(value, list):
        shown = "<br>".join(_cell(item) for item in value[:20])
        return shown + (f"<br>and {len(value) - 20} more" if len(value) > 20 else "")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(str(value))


def write_page(path: Path, text: str) -> None:
    """Replace the file at once, so that a browser never loads half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
