"""How documents of any length become rows of one length.

The only place where labels are shifted: nothing else in lit_llm slices `[:, 1:]`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from lit_llm.data.batch import IGNORE, Row, pad
from lit_llm.data.order import Permutation
from lit_llm.data.settings import TooLong


class Tokens(Protocol):
    """What packing needs of `lit_llm.data.shards.Shards`, which says what each of them is."""

    n_tokens: int
    n_documents: int
    has_mask: bool
    starts: np.ndarray

    def tokens(self, start: int, stop: int) -> np.ndarray: ...

    def mask(self, start: int, stop: int) -> np.ndarray: ...


class ConcatRows:
    """Pretraining: row i is tokens [i * T, (i + 1) * T) of all documents, one after another.

    Nothing is padded and every token is an input once. A document that began in an earlier row
    goes on at position 0, because nothing before the row can be seen from it.

    Args:
        shards: the documents
        seq_len: T, tokens of a row
        attend_across_documents: make each row one document. The label of a document's last token
            is then the next document's first, as it is in GPT-2's training; else it is IGNORE.
        keep_tail: pad what is left after the last full row to one more row, instead of dropping
            it: for validation, whose result should cover every token
        pad_id: token id that fills the tail
    """

    def __init__(
        self,
        shards: Tokens,
        seq_len: int,
        *,
        attend_across_documents: bool = False,
        keep_tail: bool = False,
        pad_id: int = 0,
    ) -> None:
        assert not shards.has_mask, "conversations have a loss mask, which only FirstFitRows reads"
        self.shards = shards
        self.seq_len = seq_len
        self.attend_across_documents = attend_across_documents
        self.pad_id = pad_id
        # One token more than the rows hold: the label of the last one.
        labelled = max(0, shards.n_tokens - 1)
        self.n_rows = -(-labelled // seq_len) if keep_tail else labelled // seq_len
        self._places = np.arange(seq_len)

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, i: int) -> Row:
        return _row(self, i)

    def write(self, i: int, fields: np.ndarray) -> None:
        """Write row i into the four fields of a row, int64 of shape (4, T)."""
        start = _checked(i, self.n_rows) * self.seq_len
        stop = min(start + self.seq_len + 1, self.shards.n_tokens)
        n = stop - start - 1
        if n < self.seq_len:
            pad(fields[:, n:], self.pad_id)
            fields = fields[:, :n]
        tokens, labels, documents, positions = fields
        ids = self.shards.tokens(start, stop)
        tokens[:], labels[:] = ids[:-1], ids[1:]
        documents[:], positions[:] = 0, self._places[:n]
        if self.attend_across_documents:
            return
        starts = self.shards.starts
        first, last = starts.searchsorted([start + 1, stop])
        opens = starts[first:last] - start  # where documents begin, the row's own first one not
        labels[opens - 1] = IGNORE
        edges = np.concatenate([[0], opens[opens < n], [n]])
        if len(edges) > 2:
            lengths = edges[1:] - edges[:-1]
            documents[:] = np.repeat(np.arange(len(lengths)), lengths)
            positions -= np.repeat(edges[:-1], lengths)


class FirstFitRows:
    """Conversations: each whole in one row, as many in a row as fit, the rest padding.

    A label is kept where the mask says that the token to be predicted is to be learned. A
    conversation goes into the first row that has room for it. They are taken in a fixed shuffled
    order: rows of neighbours or of equal lengths would make batches less varied.

    Args:
        shards: the conversations
        seq_len: T, tokens of a row
        pad_id: token id of the padding
        too_long: what to do about conversations longer than a row; they are counted in
            `n_too_long`, and `longest` is the tokens of the longest

    Raises:
        ValueError: with `too_long="error"` where one is, and always where none is short enough.
    """

    def __init__(
        self, shards: Tokens, seq_len: int, *, pad_id: int = 0, too_long: TooLong = "drop"
    ) -> None:
        assert shards.has_mask, "documents without a loss mask are for ConcatRows"
        self.shards = shards
        self.seq_len = seq_len
        self.pad_id = pad_id
        lengths = np.diff(shards.starts)
        self.longest = int(lengths.max(initial=0))
        self.n_too_long = int((lengths > seq_len).sum())
        self._check(too_long)
        self.members, self.borders = _first_fit(lengths, seq_len)

    def _check(self, too_long: TooLong) -> None:
        if not self.n_too_long or (
            too_long == "drop" and self.n_too_long < self.shards.n_documents
        ):
            return
        raise ValueError(
            f"{self.n_too_long} of {self.shards.n_documents} conversations are longer than "
            f"seq_len={self.seq_len} (the longest has {self.longest} tokens):\n"
            "raise data.seq_len"
            + ("" if too_long == "drop" else ", or leave them out with data.too_long=drop")
        )

    def __len__(self) -> int:
        return len(self.borders) - 1

    def __getitem__(self, i: int) -> Row:
        return _row(self, i)

    def write(self, i: int, fields: np.ndarray) -> None:
        """Write row i into the four fields of a row, int64 of shape (4, T)."""
        _checked(i, len(self))
        tokens, labels, documents, positions = fields
        at = 0
        for number, document in enumerate(self.members[self.borders[i] : self.borders[i + 1]]):
            start, stop = self.shards.starts[document : document + 2].tolist()
            ids, mask = self.shards.tokens(start, stop), self.shards.mask(start, stop)
            end = at + len(ids)
            tokens[at:end] = ids
            labels[at : end - 1] = np.where(mask[1:], ids[1:], IGNORE)
            labels[end - 1] = IGNORE
            documents[at:end] = number
            positions[at:end] = np.arange(len(ids))
            at = end
        pad(fields[:, at:], self.pad_id)


def _row(rows: ConcatRows | FirstFitRows, i: int) -> Row:
    fields = np.empty((len(Row._fields), rows.seq_len), dtype=np.int64)
    rows.write(i, fields)
    return Row(*torch.from_numpy(fields))


def _checked(i: int, n: int) -> int:
    if not 0 <= i < n:
        raise IndexError(f"row {i} of {n}")
    return i


def _first_fit(lengths: np.ndarray, seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Put each document that is short enough into the first row with room for it.

    A tree over the rows holds at each node the most room below it, so that finding a row takes
    log2(rows) steps and not a walk over all of them.

    Returns:
        documents ordered by row, and where each row begins in that list (int64, rows + 1)
    """
    order = Permutation(max(1, len(lengths)), "first fit")
    shuffled = order.many(np.arange(len(lengths)))
    shuffled = shuffled[lengths[shuffled] <= seq_len]
    leaves = 1 << max(0, len(shuffled) - 1).bit_length()
    room = [seq_len] * (2 * leaves)
    rows = np.zeros(len(shuffled), dtype=np.int64)
    for index, length in enumerate(lengths[shuffled].tolist()):
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < length:
                node += 1
        rows[index] = node - leaves
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    n_rows = int(rows.max(initial=-1)) + 1
    members = shuffled[np.argsort(rows, kind="stable")]
    return members, np.searchsorted(np.sort(rows), np.arange(n_rows + 1))
