from itertools import islice

import numpy as np
import pytest
import torch

from lit_llm.data.batch import IGNORE, PADDING, Batch, Row, collate, empty_row
from lit_llm.data.loader import AllRows, EndlessSampler, OnceSampler, OrderedRows, batch_loader
from lit_llm.data.order import Order
from lit_llm.data.packing import ConcatRows


class Rows:
    """Row i holds i + first in its only token."""

    def __init__(self, n: int, first: int = 0) -> None:
        self.n = n
        self.first = first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Row:
        if not 0 <= i < self.n:
            raise IndexError(i)
        token = torch.tensor([self.first + i])
        zero = torch.zeros_like(token)
        return Row(token, token, zero, zero)


def endless(micro, rank=0, ranks=1, first_step=0, total=12):
    return EndlessSampler(total, micro, rank=rank, ranks=ranks, first_step=lambda: first_step)


def test_micro_batches_of_one_rank_worked_out_by_hand():
    # Step 5 of 12 samples is positions 60 to 71; two ranks take 3 each of every 6.
    sampler = endless(3, rank=1, ranks=2, first_step=5)
    assert list(islice(sampler, 3)) == [[63, 64, 65], [69, 70, 71], [75, 76, 77]]


@pytest.mark.parametrize(("micro", "ranks"), [(12, 1), (4, 1), (1, 1), (6, 2), (2, 3), (1, 12)])
def test_a_step_holds_the_same_samples_however_it_is_cut(micro, ranks):
    accumulate = 12 // (micro * ranks)
    for step in range(3):
        got = [
            position
            for rank in range(ranks)
            for batch in islice(endless(micro, rank, ranks, step), accumulate)
            for position in batch
        ]
        assert sorted(got) == list(range(12 * step, 12 * step + 12))


def test_a_run_that_starts_at_step_3_goes_on_like_one_that_came_there():
    whole = list(islice(endless(4), 15))
    assert list(islice(endless(4, first_step=3), 6)) == whole[9:]


def test_a_new_iteration_goes_on_where_the_run_is():
    step = 2
    sampler = EndlessSampler(4, 4, first_step=lambda: step)
    assert next(iter(sampler)) == [8, 9, 10, 11]
    step = 7
    assert next(iter(sampler)) == [28, 29, 30, 31]


def test_an_endless_loader_has_no_length():
    loader = batch_loader(OrderedRows([Rows(5)], Order([5])), endless(4))
    with pytest.raises(TypeError):
        len(loader)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(num_workers):
    rows = OrderedRows([Rows(5), Rows(7, first=100)], Order([5, 7], [2, 1], seed=1))

    def tokens(workers):
        loader = batch_loader(rows, endless(4, first_step=2), num_workers=workers)
        return [batch.tokens_BT.flatten().tolist() for batch in islice(loader, 8)]

    alone = tokens(0)
    assert tokens(num_workers) == alone
    assert len({tuple(batch) for batch in alone}) > 1


def test_a_sample_is_the_row_that_the_order_says():
    order = Order([5, 7], [2, 1], seed=1)
    rows = OrderedRows([Rows(5), Rows(7, first=100)], order)
    for position in range(50):
        component, row = order[position]
        assert rows[position].tokens_T.item() == 100 * component + row


def test_a_loader_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    next(iter(batch_loader(OrderedRows([Rows(5)], Order([5])), endless(4))))
    list(batch_loader(AllRows([Rows(5)]), OnceSampler(5, 2)))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("batch_size", "ranks"), [(4, 1), (3, 2), (2, 5), (20, 3)])
def test_validation_sees_every_row_once_and_fills_up_with_padding(batch_size, ranks):
    rows = AllRows([Rows(6), Rows(11, first=6)])
    assert len(rows) == 17
    found, batches = [], set()
    for rank in range(ranks):
        sampler = OnceSampler(17, batch_size, rank=rank, ranks=ranks)
        loader = batch_loader(rows, sampler)
        batches.add(len(loader))
        for batch in loader:
            assert batch.tokens_BT.shape == (batch_size, 1)
            padding = batch.documents_BT == PADDING
            assert batch.labels_BT[padding].eq(IGNORE).all()
            found += batch.tokens_BT[~padding].tolist()
    assert sorted(found) == list(range(17))
    assert len(batches) == 1


def test_validation_keeps_the_order_of_the_rows():
    assert list(OnceSampler(5, 2)) == [[0, 1], [2, 3], [4, 5]]
    assert list(OnceSampler(5, 2, rank=1, ranks=2)) == [[2, 3], [6, 7]]


class Stored:
    """Shards in memory, a document for each length."""

    def __init__(self, lengths, first=0):
        self.starts = np.cumsum([0, *lengths])
        self.n_tokens, self.n_documents, self.has_mask = int(self.starts[-1]), len(lengths), False
        self._first = first

    def tokens(self, start, stop):
        return np.arange(start, stop, dtype=np.int64) + self._first


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("micro", [2, 40])  # 40 rows are looked up together
def test_rows_written_into_a_batch_are_those_that_were_asked_for_one_by_one(num_workers, micro):
    components = [ConcatRows(Stored([3, 9, 1, 30]), 4), ConcatRows(Stored([50], first=70_000), 4)]
    rows = OrderedRows(components, Order([10, 12], [2, 1], seed=1))
    sampler = EndlessSampler(micro, micro, first_step=lambda: 3)
    loader = batch_loader(rows, sampler, num_workers=num_workers)
    for step, batch in enumerate(islice(loader, 3), 3):
        assert isinstance(batch, Batch)
        expected = collate([rows[p] for p in range(step * micro, (step + 1) * micro)])
        for name, field in batch._asdict().items():
            assert field.dtype == torch.int64
            assert field.is_contiguous()
            assert torch.equal(field, getattr(expected, name)), name


def test_a_batch_beyond_the_last_row_is_padding_in_all_fields():
    rows = AllRows([ConcatRows(Stored([9]), 4)])  # two rows
    *_, last = batch_loader(rows, OnceSampler(len(rows), 3))
    padding = empty_row(rows[0])
    for field, expected in zip(last, padding, strict=True):
        assert torch.equal(field[2], expected)
    assert [torch.equal(a, b) for a, b in zip(rows[2], padding, strict=True)] == [True] * 4
