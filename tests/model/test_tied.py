import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import profile

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.tied import TiedEmbedding

IDS = torch.tensor([[3, 1, 3], [0, 3, 6]])  # 3 is looked up three times, 2, 4, 5 never


class Net(nn.Module):
    """A look-up, something between, and a projection by the same weight."""

    def __init__(self, kind: type[nn.Embedding]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = kind(7, 5, _weight=torch.randn(7, 5, generator=generator))
        self.between = nn.Linear(5, 5, bias=False)
        self.between.weight.data = torch.randn(5, 5, generator=generator)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        return self.between(self.embed(ids)).tanh()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.linear(self.hidden(ids), self.embed.weight).square().sum()


def both() -> tuple[Net, Net]:
    return Net(TiedEmbedding), Net(nn.Embedding)


def assert_alike(found: Net, expected: Net) -> None:
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_gradient_is_pytorchs_without_a_matrix_of_zeros():
    found, expected = both()
    with profile() as operations:
        found(IDS).backward()
    assert "aten::embedding_dense_backward" not in {event.name for event in operations.events()}
    expected(IDS).backward()
    assert_alike(found, expected)


def test_gradients_of_several_batches_add_up():
    found, expected = both()
    for net in (found, expected):
        for ids in (IDS, IDS.flip(0) * 2 % 7):
            net(ids).backward()
    assert_alike(found, expected)
    assert not found.embed.weight._backward_hooks


def test_two_forward_passes_may_come_before_their_backward_passes():
    found, expected = both()
    for net in (found, expected):
        first, second = net(IDS), net(IDS[:1])
        second.backward()
        first.backward()
    assert_alike(found, expected)


def test_under_autocast_the_gradient_is_pytorchs():
    found, expected = both()
    for net in (found, expected):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(IDS)
        loss.backward()
    assert found.embed.weight.grad.dtype == torch.float32
    assert_alike(found, expected)


def test_a_loss_without_the_projection_gives_the_look_ups_gradient():
    found, expected = both()
    for net in (found, expected):
        for ids in (IDS, IDS.flip(0)):
            net.hidden(ids).square().sum().backward()
    assert_alike(found, expected)


def test_a_backward_pass_that_never_came_leaves_nothing_behind():
    found, expected = both()
    found(IDS)
    assert not found.embed.weight._backward_hooks
    for net in (found, expected):
        net(IDS[:1]).backward()
    assert_alike(found, expected)


def test_gradients_can_be_asked_for_without_being_kept():
    found, expected = both()
    gradients = [
        torch.autograd.grad(net(IDS), [net.embed.weight, net.between.weight])
        for net in (found, expected)
    ]
    torch.testing.assert_close(*gradients)
    assert found.embed.weight.grad is None


@pytest.mark.parametrize("frozen", [False, True])
def test_without_a_gradient_it_is_a_plain_look_up(frozen):
    found, expected = both()
    for net in (found, expected):
        net.embed.weight.requires_grad_(not frozen)
    with torch.set_grad_enabled(frozen):
        assert torch.equal(found(IDS), expected(IDS))
    assert not found.embed.weight._backward_hooks


def test_a_network_with_tied_embeddings_has_one_and_can_be_copied():
    sizes = {"vocab_size": 50, "max_seq_len": 8, "d_model": 24, "n_head": 4, "n_kv_head": 2}
    assert type(GPT(GPTConfig(**sizes)).embed) is nn.Embedding
    gpt = GPT(GPTConfig(**sizes, tie_embeddings=True))
    init_weights(gpt, 1, gpt.config.n_layer)
    tokens = torch.randint(50, (2, 8), generator=torch.Generator().manual_seed(0))
    gpt(tokens).logsumexp(-1).sum().backward()
    plain = copy.deepcopy(gpt)
    plain.zero_grad()
    plain.embed.__class__ = nn.Embedding
    plain(tokens).logsumexp(-1).sum().backward()
    torch.testing.assert_close(gpt.embed.weight.grad, plain.embed.weight.grad)
