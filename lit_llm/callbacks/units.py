"""Numbers as people read them."""

from __future__ import annotations


def short(number: float) -> str:
    """Three digits and a unit: 18240 -> 18.2k."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any: 42 -> 0:42."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def teraflops(flops: float) -> str:
    """1e12 operations a second, two digits or the whole number: 2.1e11 -> 0.21."""
    return f"{flops / 1e12:.2g}" if flops < 1e14 else f"{flops / 1e12:,.0f}"
