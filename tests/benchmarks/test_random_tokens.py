from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def random_tokens(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # benchmarks/ is no part of the installed package
    from benchmarks import random_tokens

    return random_tokens


def test_a_row_is_a_function_of_its_number(random_tokens):
    rows, again = (random_tokens.RandomRows(50, 12, 1) for _ in range(2))
    assert torch.equal(rows[5].tokens_T, again[5].tokens_T)
    assert not torch.equal(rows[5].tokens_T, rows[6].tokens_T)
    assert torch.equal(rows[5].tokens_T[1:], rows[5].labels_T[:-1])
    assert int(rows[5].tokens_T.max()) < 50


def test_documents_share_a_row(random_tokens):
    row = random_tokens.RandomRows(50, 7, 3)[0]
    assert row.documents_T.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert row.positions_T.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_it_stands_in_for_a_corpus_without_preparing_one(random_tokens):
    data = random_tokens.RandomTokens(50, seq_len=12, global_batch_size=6, micro_batch_size=3)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens_BT.shape == (3, 12)
    assert data.accumulate == 2
    assert data.vocab_size == 50
    assert data.token_bytes_V.tolist() == [4] * 50
    assert data.describe()["parts"] == {}
