"""report.png: the curves of a run on one page."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from statistics import median
from typing import TYPE_CHECKING, Any

from lit_llm.callbacks.units import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACCENT, INK, GREY, FAINT = "#2563eb", "#1f2937", "#6b7280", "#e5e7eb"
_SHADES = (ACCENT, INK, "#93a3b8", "#7c9cf0")  # of the learning rates' groups

Series = tuple[list[float], list[float]]
"""Steps and the values there."""


def series(rows: list[dict[str, str]], name: str) -> Series:
    """One metric of a metrics.csv; rows that lack it, or hold no finite number, are left out."""
    points = [(float(row["step"]), float(row[name])) for row in rows if row.get(name)]
    finite = [(step, value) for step, value in points if abs(value) < float("inf")]
    return [step for step, _ in finite], [value for _, value in finite]


def draw(rows: list[dict[str, str]]) -> bytes:
    """The page as a PNG: losses, learning rates, speed, gradient norm against optimizer steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow, and fit may never need it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.2), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12, hspace=0.06, wspace=0.04)  # type: ignore[union-attr, call-arg]
    grid = figure.add_gridspec(2, 3, height_ratios=(1.75, 1))
    _draw_losses(figure.add_subplot(grid[0, :]), rows)
    _draw_rates(figure.add_subplot(grid[1, 0]), rows)
    _draw_speed(figure.add_subplot(grid[1, 1]), rows)
    _draw_norm(figure.add_subplot(grid[1, 2]), rows)
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw_losses(axes: Axes, rows: list[dict[str, str]]) -> None:
    _style(axes, "Loss", "nats per token")
    steps, losses = series(rows, "train/loss")
    if steps:
        axes.plot(steps, losses, color=ACCENT, alpha=0.25, linewidth=1)
        axes.plot(steps, smooth(losses), color=ACCENT, linewidth=1.8, label="training")
    steps, losses = series(rows, "val/loss")
    if steps:
        axes.plot(
            steps, losses, color=INK, linewidth=1.4, marker="o", markersize=3.5, label="validation"
        )
    if axes.lines:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper right")
    _add_token_axis(axes, rows)


def _add_token_axis(axes: Axes, rows: list[dict[str, str]]) -> None:
    steps, tokens = series(rows, "tokens")
    if not steps or not steps[-1] or not tokens[-1]:
        return
    # Tokens grow with steps by one factor: the global batch of a run never changes.
    per_step = tokens[-1] / steps[-1]

    def to_tokens(step: Any) -> Any:  # a number or a NumPy array, as matplotlib asks
        return step * per_step

    def to_steps(tokens: Any) -> Any:
        return tokens / per_step

    top = axes.secondary_xaxis("top", functions=(to_tokens, to_steps))
    top.set_xlabel("tokens", color=GREY, fontsize=9)
    top.xaxis.set_major_formatter(_compact)
    top.tick_params(colors=GREY, labelsize=8.5, length=0)
    top.spines["top"].set_visible(False)


def _draw_rates(axes: Axes, rows: list[dict[str, str]]) -> None:
    _style(axes, "Learning rate", "")
    names = [name for name in rows[0] if name == "lr" or name.startswith("lr/")] if rows else []
    groups: dict[tuple[float, ...], list[str]] = {}
    for name in names:  # groups with one curve share a line
        groups.setdefault(tuple(series(rows, name)[1]), []).append(name.removeprefix("lr/"))
    for i, (values, members) in enumerate(groups.items()):
        steps = series(rows, next(n for n in names if n.removeprefix("lr/") == members[0]))[0]
        label = ", ".join(members)
        axes.plot(steps, values, color=_SHADES[i % len(_SHADES)], linewidth=1.6, label=label)
    if len(groups) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
    _from_zero(axes)


def _draw_speed(axes: Axes, rows: list[dict[str, str]]) -> None:
    steps, speeds = series(rows, "speed/tokens_per_second")
    _style(axes, "Speed", "tokens per second")
    if not steps:
        _say_nothing_logged(axes)
        return
    axes.plot(steps, speeds, color=ACCENT, linewidth=1.6)
    axes.yaxis.set_major_formatter(_compact)
    axes.set_ylim(bottom=0, top=1.25 * max(speeds))
    note = f"median {short(median(speeds))}"
    if mfu := series(rows, "speed/mfu")[1]:
        note += f"  ·  MFU {median(mfu):.1%}"
    axes.text(0.98, 0.95, note, transform=axes.transAxes, ha="right", va="top", color=GREY, size=9)


def _draw_norm(axes: Axes, rows: list[dict[str, str]]) -> None:
    _style(axes, "Gradient norm", "L2 norm before clipping")
    steps, norms = series(rows, "train/grad_norm")
    if not steps:
        _say_nothing_logged(axes)
        return
    axes.plot(steps, norms, color=ACCENT, alpha=0.3, linewidth=1)
    axes.plot(steps, smooth(norms), color=ACCENT, linewidth=1.6)
    if min(norms) > 0 and max(norms) > 20 * min(norms):
        axes.set_yscale("log")
    else:
        _from_zero(axes)


def smooth(values: list[float]) -> list[float]:
    """Mean over a centred window of about a 20th of the curve, narrower towards its ends.

    Centred, because an average of what came before lies above a falling loss.
    """
    reach = len(values) // 40
    result = []
    for i in range(len(values)):
        side = min(reach, i, len(values) - 1 - i)
        window = values[i - side : i + side + 1]
        result.append(sum(window) / len(window))
    return result


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(bottom=0, top=1.08 * axes.get_ylim()[1])


def _say_nothing_logged(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", color=GREY, size=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _style(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=8)
    axes.set_xlabel("optimizer steps", color=GREY, fontsize=9)
    axes.set_ylabel(unit, color=GREY, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cbd5e1")
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=8.5, length=0)
    axes.xaxis.set_major_formatter(_thousands)
    axes.margins(x=0.01)


_compact: Callable[[float, Any], str] = lambda value, _: short(value) if value else "0"  # noqa: E731
_thousands: Callable[[float, Any], str] = lambda value, _: f"{value:,.0f}"  # noqa: E731
