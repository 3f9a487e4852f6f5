"""What the data gives to an objective: rows of tokens, labels, documents and positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

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


def empty_row(row: Row) -> Row:
    """A row of the same length that is all padding: it costs a forward pass and counts nothing."""
    zeros_T = torch.zeros_like(row.tokens_T)
    return Row(zeros_T, zeros_T + IGNORE, zeros_T + PADDING, zeros_T)
