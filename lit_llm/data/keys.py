"""Names of cached folders."""

from __future__ import annotations

import hashlib
import json
from typing import Any

FORMAT = 2
"""Raise it whenever the same inputs come out as other bytes: nothing old is found any more."""


def key_of(*parts: Any) -> str:
    """SHA-256, in 32 hex digits, of plain values and of the format's version."""
    plain = json.dumps([FORMAT, *parts], sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def class_name(instance: object) -> str:
    """Where a class is found."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}"
