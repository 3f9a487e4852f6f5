"""What every objective inherits."""

import torch

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model import varlen
from lit_llm.objective import CausalLM, MaskedLM


def batch() -> Batch:
    tokens = torch.arange(10).view(2, 5)
    documents = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 2, -1, -1]])
    positions = torch.tensor([[0, 1, 0, 1, 2], [0, 0, 0, 0, 0]])
    return Batch(tokens, torch.full_like(tokens, IGNORE), documents, positions)


def test_what_was_expected_is_known_to_the_next_layout_only(monkeypatch):
    monkeypatch.setattr(varlen, "kernel", lambda device: torch.add)
    objective = CausalLM()
    assert objective.layout(batch()).documents is None
    objective.expect(batch())
    documents = objective.layout(batch()).documents
    assert documents.borders_N[:8].tolist() == [0, 2, 5, 6, 7, 8, 10, 10]
    assert objective.layout(batch()).documents is None


def test_an_objective_that_sees_both_ways_says_so_to_its_layout(monkeypatch):
    monkeypatch.setattr(varlen, "kernel", lambda device: torch.add)
    for objective in (CausalLM(), MaskedLM()):
        objective.expect(batch())
        layout = objective.layout(batch())
        assert layout.documents.is_causal is not objective.bidirectional
        assert bool(layout.mask_B1TS[0, 0, 0, 1]) is objective.bidirectional
