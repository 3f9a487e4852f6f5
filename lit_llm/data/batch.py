"""What the data gives to an objective: rows of tokens, labels, documents and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

IGNORE = -100
"""Label of a token without a loss; `ignore_index` of PyTorch's cross entropy by default."""

PADDING = -1
"""Document number of padding."""


class Row(NamedTuple):
    """One sequence; what each field means stands at `Batch`."""

    tokens_T: Tensor
    labels_T: Tensor
    documents_T: Tensor
    positions_T: Tensor


class Batch(NamedTuple):
    """Sequences of equal length; all four are int64 of shape (B, T)."""

    tokens_BT: Tensor
    """token ids"""

    labels_BT: Tensor
    """the token that comes next, or IGNORE where there is none to be learned"""

    documents_BT: Tensor
    """which document of its row a token belongs to, counted from 0; PADDING on padding"""

    positions_BT: Tensor
    """the token's place in its document (for RoPE), counted from 0; 0 on padding"""


def collate(rows: Sequence[Row]) -> Batch:
    """Stack rows of equal length into a batch."""
    return Batch(*(torch.stack(field) for field in zip(*rows, strict=True)))


class Room:
    """The memory of a batch, into which rows write themselves: nothing is stacked or copied."""

    def __init__(self, n_rows: int, seq_len: int) -> None:
        # A worker sends it through a pipe: half as many bytes there, int64 again behind it.
        self._is_sent = get_worker_info() is not None
        dtype = np.int32 if self._is_sent else np.int64
        self._fields = np.empty((len(Batch._fields), n_rows, seq_len), dtype)

    def row(self, number: int) -> np.ndarray:
        """The four fields of a row, of shape (4, T); what is in it is undefined."""
        return self._fields[:, number]

    def batch(self) -> Batch | Sent:
        """All rows."""
        return Sent(self._fields) if self._is_sent else _batch(self._fields)


class Sent:
    """A batch on its way from a worker: it arrives as a `Batch`.

    PyTorch's own way, shared memory, costs a worker 1.6 ms a batch of 32 x 1024 for opening it, for
    its pages, and for a socket over which the two agree: more than all the rows of the batch.
    """

    def __init__(self, fields: np.ndarray) -> None:
        self._fields = fields

    def __reduce__(self) -> tuple[Callable[[np.ndarray], Batch], tuple[np.ndarray]]:
        return _batch, (self._fields,)


def _batch(fields: np.ndarray) -> Batch:
    return Batch(*torch.from_numpy(fields.astype(np.int64, copy=False)))


def pad(fields: np.ndarray, pad_id: int = 0) -> None:
    """Make padding of the fields of a row, or of a part of one."""
    fields[:] = np.array([[pad_id], [IGNORE], [PADDING], [0]])


def empty_row(row: Row) -> Row:
    """A row of the same length that is all padding: it costs a forward pass and counts nothing."""
    zeros_T = torch.zeros_like(row.tokens_T)
    return Row(zeros_T, zeros_T + IGNORE, zeros_T + PADDING, zeros_T)
