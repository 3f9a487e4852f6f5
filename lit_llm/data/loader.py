"""Which samples one data-parallel rank fetches, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lit_llm.data.batch import Batch, Room, Row, Sent, collate, empty_row, pad
from lit_llm.data.follow import follow_parent
from lit_llm.data.order import Order

MANY = 30
"""Positions that are looked up faster together than one by one; see `Permutation.many`."""


class Rows(Protocol):
    """Rows by number, as `lit_llm.data.packing` makes them.

    Those that have `seq_len` and `write(i, fields)` too are written straight into the batch.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Row: ...


class _Batches(Dataset[Row]):
    """Gives one row, or all rows of a batch at once."""

    def __init__(self, components: Sequence[Rows]) -> None:
        self.components = components
        writers = all(hasattr(rows, "write") for rows in components)
        self._seq_len: int | None = components[0].seq_len if writers else None  # type: ignore[attr-defined]

    def __getitem__(self, index: int) -> Row:
        ((component, row),) = self._places([index])
        if component is None:
            return empty_row(self.components[0][0])
        return self.components[component][row]

    def __getitems__(self, indices: list[int]) -> Batch | Sent:
        """What PyTorch asks for in place of one row after another."""
        if self._seq_len is None:
            return collate([self[index] for index in indices])
        room = Room(len(indices), self._seq_len)
        for number, (component, row) in enumerate(self._places(indices)):
            if component is None:
                pad(room.row(number))
            else:
                writer: Any = self.components[component]
                writer.write(row, room.row(number))
        return room.batch()

    def _places(self, indices: Sequence[int]) -> list[tuple[int | None, int]]:
        """(component, its row) of each index; None: padding."""
        raise NotImplementedError


class OrderedRows(_Batches):
    """The rows of one or several corpora, addressed by their position in the run."""

    def __init__(self, components: Sequence[Rows], order: Order) -> None:
        super().__init__(components)
        self.order = order

    def _places(self, indices: Sequence[int]) -> list[tuple[int | None, int]]:
        if len(indices) < MANY:
            return [self.order[position] for position in indices]
        components, rows = self.order.many(np.array(indices))
        return list(zip(components.tolist(), rows.tolist(), strict=True))


class AllRows(_Batches):
    """The rows of several corpora, one corpus after another; an index past the end is padding."""

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.components)

    def _places(self, indices: Sequence[int]) -> list[tuple[int | None, int]]:
        return [self._place(index) for index in indices]

    def _place(self, index: int) -> tuple[int | None, int]:
        for component, rows in enumerate(self.components):
            if index < len(rows):
                return component, index
            index -= len(rows)
        return None, index


class EndlessSampler(Sampler[list[int]]):
    """Positions of one rank's micro-batches, from a given step on, without end.

    Step s of the run is always positions [s * global_batch_size, (s + 1) * global_batch_size).
    Its micro-batches, and each micro-batch's share for each rank, are slices of that range in
    order: how the range is cut decides who fetches a sample, never whether it is fetched.

    Args:
        global_batch_size: samples of an optimizer step
        micro_batch_size: samples that one rank takes at a time; times `ranks` it must divide
            the global batch
        rank: which data-parallel rank this is
        ranks: how many there are
        first_step: asked whenever an iteration begins: a loader that Lightning iterates anew
            goes on where the run is, and does not start over
    """

    def __init__(
        self,
        global_batch_size: int,
        micro_batch_size: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        first_step: Callable[[], int],
    ) -> None:
        assert global_batch_size % (micro_batch_size * ranks) == 0
        assert 0 <= rank < ranks
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.ranks = ranks
        self.first_step = first_step

    def __iter__(self) -> Iterator[list[int]]:
        # No step begins in the middle: global_batch_size is a multiple of what all ranks take.
        position = self.first_step() * self.global_batch_size + self.rank * self.micro_batch_size
        while True:
            yield list(range(position, position + self.micro_batch_size))
            position += self.micro_batch_size * self.ranks


class OnceSampler(Sampler[list[int]]):
    """Each of `n` rows once over all ranks, in order.

    All batches of all ranks have the same shape, and all ranks the same number of them, for
    collectives and compiled blocks; what is missing at the end are indices from `n` on.
    """

    def __init__(self, n: int, batch_size: int, *, rank: int = 0, ranks: int = 1) -> None:
        self.n = n
        self.batch_size = batch_size
        self.rank = rank
        self.ranks = ranks

    def __len__(self) -> int:
        return -(-self.n // (self.batch_size * self.ranks))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(len(self)):
            start = (batch * self.ranks + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))


def batch_loader(
    rows: Dataset[Row],
    sampler: EndlessSampler | OnceSampler,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Row]:
    """A loader of `Batch`es, which are the same for any number of workers.

    It has a generator of its own because PyTorch draws a seed for the workers from it: from the
    global one, each validation would change the dropout of the training steps that follow.
    """
    return DataLoader(
        rows,
        batch_sampler=sampler,
        collate_fn=_collated,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=follow_parent,
        generator=torch.Generator().manual_seed(0),
    )


def _collated(rows: Batch | Sent | list[Row]) -> Batch | Sent:
    return rows if isinstance(rows, Batch | Sent) else collate(rows)
