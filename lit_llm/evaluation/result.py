"""What came of a task: metrics, each with its standard error and what it was counted over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One number."""

    name: str
    value: float
    stderr: float | None
    """Standard error; None where there is none to tell, as of a single question"""

    count: int
    """How many questions, documents or windows it is an average over"""


@dataclass
class Result:
    """The numbers of one task."""

    task: str
    """As it was asked for; a group of the harness has several"""

    metrics: list[Metric]

    counts: dict[str, int] = field(default_factory=dict)
    """What was read, such as bytes and tokens"""

    settings: dict[str, Any] = field(default_factory=dict)
    """What the numbers depend on, besides the model and the data"""

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        metrics = {
            metric.name: {
                "value": _finite(metric.value),
                "stderr": _finite(metric.stderr),
                "count": metric.count,
            }
            for metric in self.metrics
        }
        return {
            "task": self.task,
            "metrics": metrics,
            "counts": self.counts,
            "settings": self.settings,
        }


def share(name: str, hits: Sequence[bool]) -> Metric:
    """How many of the questions are answered rightly.

    The standard error is that of a mean, sqrt(p (1 - p) / (n - 1)), as lm-evaluation-harness has
    it.
    """
    n = len(hits)
    p = sum(hits) / n
    return Metric(name, p, math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else None, n)


def shares(name: str, hits: Sequence[bool], kinds: Sequence[str | None]) -> list[Metric]:
    """The share of right answers, of all and then of each kind, in the order they first come."""
    metrics = [share(name, hits)]
    for kind in dict.fromkeys(kind for kind in kinds if kind is not None):
        its = [hit for hit, other in zip(hits, kinds, strict=True) if other == kind]
        metrics.append(share(f"{name}/{kind}", its))
    return metrics


def ratio(name: str, above: Sequence[float], below: Sequence[float], scale: float = 1.0) -> Metric:
    """The ratio of two sums over the same n parts, such as nats and bytes, times `scale`.

    The standard error is the linearised one of a ratio (Cochran, 1977, Sampling Techniques, 3rd
    ed., eq. 6.4): sqrt(n / (n - 1) * sum((above - r * below)^2)) / sum(below). It takes the parts
    as independent, which neighbouring pieces of a text are only roughly.
    """
    n, total = len(above), math.fsum(below)
    r = math.fsum(above) / total
    spread = math.fsum((a - r * b) ** 2 for a, b in zip(above, below, strict=True))
    stderr = math.sqrt(n / (n - 1) * spread) / total * scale if n > 1 else None
    return Metric(name, r * scale, stderr, n)


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
