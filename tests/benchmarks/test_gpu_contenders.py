import pytest
import torch

from benchmarks import gpu_contenders
from benchmarks.gpu_contenders import peer, peer_network
from benchmarks.peers import train
from benchmarks.rounds import NotRun
from lit_llm.data.batch import Batch


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr(gpu_contenders, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(gpu_contenders, "COMPILE", False)


def test_a_peer_that_cannot_be_imported_is_not_here(monkeypatch):
    def broken(sizes):
        raise ImportError("No module named 'litgpt'")

    monkeypatch.setitem(train.PEERS, "litgpt", broken)
    with pytest.raises(NotRun, match="No module named 'litgpt'"):
        peer_network("litgpt")


def test_nanogpt_needs_a_checkout(monkeypatch):
    monkeypatch.delenv("NANOGPT", raising=False)
    with pytest.raises(NotRun, match=r"^NANOGPT names no checkout"):
        peer_network("nanogpt")


def test_a_peer_has_our_sizes_and_is_scored_on_what_the_batch_says_comes_next(monkeypatch):
    found = []

    def fake(sizes):
        found.append(sizes)
        model = torch.nn.Linear(1, 1)
        return model, lambda gpt, tokens, labels: (labels - tokens).float().mean()

    monkeypatch.setitem(train.PEERS, "litgpt", fake)
    contender = peer("litgpt")
    ours = gpu_contenders.network()
    (sizes,) = found
    assert (sizes.n_layer, sizes.d_model, sizes.d_ff) == (ours.n_layer, ours.d_model, ours.ff_dim)
    assert sizes.vocabulary == ours.padded_vocab_size
    tokens = torch.arange(6).view(2, 3)
    assert float(contender.loss_of(Batch(tokens, tokens + 5, tokens, tokens))) == 5
    assert contender.optimizer.defaults["fused"]
