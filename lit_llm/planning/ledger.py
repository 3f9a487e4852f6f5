"""Bytes that are held at each moment of a computation, and what they are.

The ledger sees the result of every operation and so every storage that is made; a weak reference
tells when the last tensor on it is gone. What a storage was for (a gradient?) is often known only
later, so births and deaths are written down first and added up by kind in the end.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_llm.planning.ghosts import Ghost

KINDS = (
    "weights",
    "copies",
    "gradients",
    "optimizer",
    "activations",
    "residual",
    "logits",
    "other",
)
"""`copies`: weights in the type that autocast computes in. `activations`: all that lives between
the forward and the backward pass, and the temporary results of both; `residual`: those of them
that are as wide as the residual stream."""

Bytes = dict[str, float]
"""Bytes by kind."""

Phases = dict[str, Bytes]
"""What is held when most is held, for each phase of a step."""

_COPY = torch.ops.aten._to_copy.default


class Ledger:
    """Writes down every storage that is made, and when it is freed.

    Args:
        vocabulary: sizes of a last dimension that mark logits
        width: of the last dimension of (B, T, D), which marks the residual stream
    """

    def __init__(self, vocabulary: Collection[int] = (), width: int | None = None) -> None:
        self._vocabulary = frozenset(vocabulary)
        self._width = width
        self._events: list[tuple[int, int]] = []  # serial number of a storage, bytes (< 0: freed)
        self._phases: list[tuple[int, str]] = []  # the first event of each phase
        self._serials: dict[int, int] = {}  # of the storages that live, by address
        self._references: dict[int, weakref.ref] = {}
        self._kinds: dict[int, str] = {}
        self._made = 0

    def see(self, tensor: Ghost, func: Any, args: Sequence[Any]) -> None:
        """Look at the result of an operation, and write its storage down if it is new."""
        storage = tensor.meta.untyped_storage()
        address = storage._cdata
        if address in self._serials or not storage.nbytes():
            return
        self._made += 1
        serial, size = self._made, storage.nbytes()
        self._serials[address] = serial
        self._events.append((serial, size))
        self._references[serial] = weakref.ref(
            storage, lambda _: self._forget(address, serial, size)
        )
        if func is _COPY and self._kind_of(args[0]) == "weights":
            self._kinds[serial] = "copies"
        elif tensor.dim() >= 2 and tensor.size(-1) in self._vocabulary:
            self._kinds[serial] = "logits"
        elif tensor.dim() == 3 and tensor.size(-1) == self._width:
            self._kinds[serial] = "residual"

    def phase(self, name: str) -> None:
        """What happens from here on belongs to another phase."""
        self._phases.append((len(self._events), name))

    def name(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        """Say what living tensors are for."""
        for tensor in tensors:
            if tensor is not None and (serial := self._serial(tensor)):
                self._kinds[serial] = kind

    def peaks(self) -> Phases:
        """Bytes by kind at the fullest moment of each phase."""
        now: Bytes = dict.fromkeys(KINDS, 0.0)
        total, peaks, highest, phase = 0, {}, -1, ""
        starts = dict(self._phases)
        for index, (serial, size) in enumerate([*self._events, (0, 0)]):
            if index in starts:
                phase, highest = starts[index], -1
            now[self._kinds.get(serial, "activations")] += size
            total += size
            if total > highest:
                highest, peaks[phase] = total, dict(now)
        return peaks

    def _forget(self, address: int, serial: int, size: int) -> None:
        self._events.append((serial, -size))
        self._serials.pop(address, None)
        self._references.pop(serial, None)

    def _kind_of(self, tensor: Tensor) -> str | None:
        return self._kinds.get(self._serial(tensor) or 0)

    def _serial(self, tensor: Tensor) -> int | None:
        if not isinstance(tensor, Ghost):
            return None
        return self._serials.get(tensor.meta.untyped_storage()._cdata)
