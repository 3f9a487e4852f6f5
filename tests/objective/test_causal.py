import math

import pytest
import torch

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.objective import CausalLM

V, B, T = 50, 3, 11


@pytest.fixture
def gpt():
    config = GPTConfig(vocab_size=V, max_seq_len=T, n_layer=2, d_model=24, n_head=3)
    gpt = GPT(config)
    init_weights(gpt, 5, 2)
    return gpt


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, V, (B, T), generator=generator)
    labels = torch.randint(0, V, (B, T), generator=generator)
    labels[0, 3] = labels[2, 7:] = IGNORE
    documents = torch.tensor([[0] * 4 + [1] * 7] * B)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]] * B)
    return Batch(tokens, labels, documents, positions)


def slow_loss(gpt, batch):
    """One document at a time, one token at a time."""
    total, count = 0.0, 0
    for tokens, labels, documents, _ in zip(*batch, strict=True):
        for document in documents.unique():
            logits = gpt(tokens[documents == document][None])[0].detach()
            for row, label in zip(logits, labels[documents == document], strict=True):
                if label != IGNORE:
                    total += float(row.logsumexp(0) - row[label])
                    count += 1
    return total, count


def test_the_sum_is_that_of_each_document_alone(gpt, batch):
    sums = CausalLM()(gpt, batch)
    total, count = slow_loss(gpt, batch)
    assert float(sums.loss) == pytest.approx(total, rel=1e-5)
    assert int(sums.tokens) == count == B * T - 5


def test_chunks_change_neither_loss_nor_gradient(gpt, batch):
    whole = CausalLM()(gpt, batch).loss
    expected = torch.autograd.grad(whole, list(gpt.parameters()))
    parts = CausalLM(chunk_tokens=4)(gpt, batch).loss
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, list(gpt.parameters())), expected)


def test_a_network_that_knows_nothing_scores_log_of_the_vocabulary(gpt, batch):
    torch.nn.init.zeros_(gpt.lm_head.weight)
    sums = CausalLM()(gpt, batch)
    assert float(sums.loss / sums.tokens) == pytest.approx(math.log(V), rel=1e-6)


def test_a_batch_of_ignored_labels_has_no_targets(batch):
    assert CausalLM().has_targets(batch)
    assert not CausalLM().has_targets(batch._replace(labels_BT=torch.full((B, T), IGNORE)))
