"""Packing against rows worked out by hand, and against slow versions written out here."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from lit_llm.data.batch import IGNORE, PADDING, collate
from lit_llm.data.order import permute
from lit_llm.data.packing import ConcatRows, FirstFitRows
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout

X = IGNORE
PAD = 99


class Tokens:
    """Shards in memory; token ids count up from `first`, so that each is one of a kind."""

    def __init__(self, lengths, masks=None, first=10):
        self.first = first
        self.starts = np.cumsum([0, *lengths])
        self.n_tokens = int(self.starts[-1])
        self.n_documents = len(lengths)
        self.has_mask = masks is not None
        self._mask = np.array([bool(int(flag)) for flag in "".join(masks or [])])

    def tokens(self, start, stop):
        assert 0 <= start <= stop <= self.n_tokens
        return np.arange(start, stop, dtype=np.int64) + self.first

    def mask(self, start, stop):
        return self._mask[start:stop]


def lists(row):
    return [field.tolist() for field in row]


def random_lengths(seed, n, longest):
    return np.random.default_rng(seed).integers(1, longest + 1, n).tolist()


# -- documents one after another ---------------------------------------------------------------

# 10 11 12 | 13 14 15 16 17 | 18 19 | 20   in rows of 4
DOCUMENTS = (3, 5, 2, 1)


def test_concatenated_rows_worked_out_by_hand():
    rows = ConcatRows(Tokens(DOCUMENTS), 4)
    assert len(rows) == 2
    assert lists(rows[0]) == [[10, 11, 12, 13], [11, 12, X, 14], [0, 0, 0, 1], [0, 1, 2, 0]]
    # The document that goes on from row 0 is number 0 here and starts at position 0.
    assert lists(rows[1]) == [[14, 15, 16, 17], [15, 16, 17, X], [0, 0, 0, 0], [0, 1, 2, 3]]


def test_the_tail_is_padded_when_it_is_kept():
    rows = ConcatRows(Tokens(DOCUMENTS), 4, keep_tail=True, pad_id=PAD)
    assert len(rows) == 3
    assert lists(rows[2]) == [[18, 19, PAD, PAD], [19, X, X, X], [0, 0, -1, -1], [0, 1, 0, 0]]


def test_a_row_begins_with_a_document_that_begins_at_its_border():
    rows = ConcatRows(Tokens([2, 2, 3]), 2)
    assert lists(rows[1]) == [[12, 13], [13, X], [0, 0], [0, 1]]


def test_attending_across_documents_makes_a_row_one_document_and_keeps_every_label():
    rows = ConcatRows(Tokens(DOCUMENTS), 4, attend_across_documents=True)
    assert lists(rows[0]) == [[10, 11, 12, 13], [11, 12, 13, 14], [0, 0, 0, 0], [0, 1, 2, 3]]


def test_a_row_needs_one_token_more_for_its_last_label():
    assert len(ConcatRows(Tokens([8]), 4)) == 1
    assert len(ConcatRows(Tokens([9]), 4)) == 2
    assert len(ConcatRows(Tokens([4]), 4)) == 0
    assert len(ConcatRows(Tokens([]), 4, keep_tail=True)) == 0
    assert len(ConcatRows(Tokens([9]), 4, keep_tail=True)) == 2


@pytest.mark.parametrize("seq_len", [1, 2, 7, 64])
def test_concatenated_rows_equal_a_walk_over_all_tokens(seq_len):
    lengths = random_lengths(seq_len, 150, 23)
    rows = ConcatRows(Tokens(lengths), seq_len, keep_tail=True, pad_id=PAD)
    stream = [(document, place) for document, n in enumerate(lengths) for place in range(n)]
    for i in range(len(rows)):
        tokens, labels, documents, positions = lists(rows[i])
        first_place: dict[int, int] = {}
        for t in range(seq_len):
            at = i * seq_len + t
            if at + 1 >= len(stream):  # nothing to predict, so nothing to read
                assert (tokens[t], labels[t], documents[t], positions[t]) == (PAD, X, PADDING, 0)
                continue
            document, place = stream[at]
            first_place.setdefault(document, place)
            assert tokens[t] == at + 10
            assert labels[t] == (at + 11 if stream[at + 1][0] == document else X)
            assert documents[t] == len(first_place) - 1
            assert positions[t] == place - first_place[document]


def test_every_token_but_the_last_is_an_input_once():
    rows = ConcatRows(Tokens([5, 9, 1, 30]), 8, keep_tail=True, pad_id=PAD)
    tokens = torch.cat([rows[i].tokens_T for i in range(len(rows))]).tolist()
    assert [token for token in tokens if token != PAD] == list(range(10, 54))


def logits_of(rows, i, change=None):
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(vocab_size=64, max_seq_len=24, n_layer=2, d_model=16, n_head=2)).eval()
    batch = collate([rows[i]])
    if change is not None:
        batch.tokens_BT[change] = (batch.tokens_BT[change] + 7) % 64
    return gpt(batch.tokens_BT, Layout.packed(batch.documents_BT, batch.positions_BT))[0]


def test_changing_one_document_moves_no_logit_of_another():
    rows = ConcatRows(Tokens([6, 9, 7, 5]), 24)
    documents_T = rows[0].documents_T
    before, after = logits_of(rows, 0), logits_of(rows, 0, change=(documents_T == 1)[None])
    assert torch.equal(before[documents_T != 1], after[documents_T != 1])
    assert not torch.equal(before[documents_T == 1], after[documents_T == 1])


def test_packed_documents_equal_one_document_at_a_time():
    rows = ConcatRows(Tokens([6, 9, 7, 5]), 24)
    packed, documents_T = logits_of(rows, 0), rows[0].documents_T
    start = 0
    for number, length in enumerate([6, 9, 7]):
        alone = ConcatRows(Tokens([length + 1], first=10 + start), length)
        torch.testing.assert_close(packed[documents_T == number], logits_of(alone, 0))
        start += length


# -- conversations, never split ----------------------------------------------------------------


def test_first_fit_rows_worked_out_by_hand():
    # Flags say "learn this token"; they move to the label before it.
    shards = Tokens([4, 3], masks=["0011", "001"])
    row = FirstFitRows(shards, 9, pad_id=PAD)[0]
    one = [[10, 11, 12, 13], [X, 12, 13, X], [0, 1, 2, 3]]
    two = [[14, 15, 16], [X, 16, X], [0, 1, 2]]
    first, second = (one, two) if row.tokens_T[0] == 10 else (two, one)
    padding = 9 - 4 - 3
    assert lists(row) == [
        first[0] + second[0] + [PAD] * padding,
        first[1] + second[1] + [X] * padding,
        [0] * len(first[0]) + [1] * len(second[0]) + [PADDING] * padding,
        first[2] + second[2] + [0] * padding,
    ]


def test_the_first_token_is_never_a_label():
    shards = Tokens([3], masks=["111"])
    assert FirstFitRows(shards, 3)[0].labels_T.tolist() == [11, 12, X]


def conversations(row):
    """{first token: (tokens, labels, positions)} of each conversation in a row."""
    found = {}
    for number in range(int(row.documents_T.max()) + 1):
        here = row.documents_T == number
        fields = [field[here].tolist() for field in (row.tokens_T, row.labels_T, row.positions_T)]
        found[fields[0][0]] = fields
    return found


@pytest.mark.parametrize("seq_len", [5, 16, 40])
def test_every_conversation_that_fits_is_whole_in_one_row(seq_len):
    lengths = random_lengths(seq_len, 200, 20)
    masks = ["".join(np.random.default_rng(i).choice(["0", "1"], n)) for i, n in enumerate(lengths)]
    shards = Tokens(lengths, masks)
    rows = FirstFitRows(shards, seq_len, pad_id=PAD)
    found = {}
    for i in range(len(rows)):
        here = conversations(rows[i])
        assert not here.keys() & found.keys()
        found |= here
        padding = rows[i].documents_T == PADDING
        assert rows[i].tokens_T[padding].eq(PAD).all()
        assert rows[i].labels_T[padding].eq(IGNORE).all()
    expected = {}
    for document, (n, mask) in enumerate(zip(lengths, masks, strict=True)):
        ids = [int(shards.starts[document]) + 10 + t for t in range(n)]
        labels = [ids[t + 1] if t + 1 < n and mask[t + 1] == "1" else X for t in range(n)]
        if n <= seq_len:
            expected[ids[0]] = [ids, labels, list(range(n))]
    assert found == expected


def test_rows_equal_a_slow_first_fit_of_the_same_order():
    lengths = random_lengths(0, 500, 30)
    rows = FirstFitRows(Tokens(lengths, ["1" * n for n in lengths]), 32)
    members = [rows.members[a:b].tolist() for a, b in pairwise(rows.borders)]
    slow: list[list[int]] = []
    for i in range(500):
        document = permute(i, 500, "first fit")
        for row in slow:
            if sum(lengths[d] for d in row) + lengths[document] <= 32:
                row.append(document)
                break
        else:
            slow.append([document])
    assert members == slow


def test_rows_of_short_conversations_are_nearly_full():
    lengths = [15 + (i * 7) % 30 for i in range(3000)]
    rows = FirstFitRows(Tokens(lengths, ["1" * n for n in lengths]), 128)
    assert sum(lengths) / (len(rows) * 128) > 0.94


def test_neighbours_are_not_put_into_one_row():
    lengths = [10] * 400
    rows = FirstFitRows(Tokens(lengths, ["1" * 10] * 400), 40)
    neighbours = sum(
        abs(int(a) - int(b)) == 1
        for i in range(len(rows))
        for a in rows.members[rows.borders[i] : rows.borders[i + 1]]
        for b in rows.members[rows.borders[i] : rows.borders[i + 1]]
        if a < b
    )
    assert neighbours < 20  # 100 rows of 4; in the corpus' own order it would be 300


def test_conversations_longer_than_a_row_are_counted_and_left_out():
    rows = FirstFitRows(Tokens([4, 11, 6, 8], ["1" * n for n in (4, 11, 6, 8)]), 7)
    assert (rows.n_too_long, rows.longest) == (2, 11)
    assert sorted(rows.members.tolist()) == [0, 2]


def test_conversations_longer_than_a_row_are_an_error_on_request():
    with pytest.raises(ValueError, match=r"2 of 4 conversations .* seq_len=7 .*longest has 11"):
        FirstFitRows(Tokens([4, 11, 6, 8], ["1" * 29]), 7, too_long="error")


def test_nothing_left_is_an_error():
    with pytest.raises(ValueError, match=r"2 of 2 conversations(.|\n)*raise data.seq_len$"):
        FirstFitRows(Tokens([8, 9], ["1" * 17]), 7)


def test_an_empty_split_has_no_rows():
    assert len(FirstFitRows(Tokens([], [""]), 7)) == 0
    assert len(ConcatRows(Tokens([]), 7)) == 0


def test_a_row_beyond_the_last_is_an_index_error():
    with pytest.raises(IndexError, match="row 2 of 2"):
        ConcatRows(Tokens(DOCUMENTS), 4)[2]
    with pytest.raises(IndexError, match="row -1 of 1"):
        FirstFitRows(Tokens([3], ["111"]), 4)[-1]
