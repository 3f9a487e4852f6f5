import pytest
import torch
import torch.nn.functional as F

from lit_llm.data.batch import IGNORE
from lit_llm.objective import cross_entropy
from lit_llm.objective.cross_entropy import cross_entropy_sum

ROWS, IDS, PADDED = 7, 11, 16


@pytest.fixture
def case():
    torch.manual_seed(0)
    logits = torch.randn(ROWS, PADDED) * 3
    targets = torch.tensor([4, IGNORE, 0, 10, 10, IGNORE, 7])
    return logits, targets


def loss_and_gradient(logits, targets, weight: float = 1.0):
    leaf = logits.clone().requires_grad_()
    loss = cross_entropy_sum(leaf * 1, targets, IDS)  # what it is given, it uses up
    (loss * weight).backward()
    return loss.detach(), leaf.grad


def test_two_logits_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4): the loss of id 0 is ln 4, its gradient (1/4 - 1, 3/4)
    logits = torch.tensor([[0.0, 3.0]]).log().clamp(min=-50)
    logits[0, 0] = 0.0
    leaf = logits.requires_grad_()
    loss = cross_entropy_sum(leaf * 1, torch.tensor([0]), 2)
    loss.backward()
    assert loss.item() == pytest.approx(1.386294)
    assert leaf.grad.tolist() == [pytest.approx([-0.75, 0.75])]


@pytest.mark.parametrize("at_once", [1, 3 * PADDED, 2**20])
def test_it_is_pytorchs_cross_entropy_of_the_ids_that_exist(case, monkeypatch, at_once):
    monkeypatch.setattr(cross_entropy, "AT_ONCE_ON_CPU", at_once)
    logits, targets = case
    leaf = logits.clone().requires_grad_()
    expected = F.cross_entropy(leaf[:, :IDS], targets, ignore_index=IGNORE, reduction="sum")
    (expected * 0.3).backward()
    loss, gradient = loss_and_gradient(logits, targets, 0.3)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)
    assert not gradient[:, IDS:].any()
    assert not gradient[targets == IGNORE].any()


def test_bfloat16_logits_are_scored_in_float32(case):
    logits, targets = case
    narrow = logits.bfloat16()
    loss, gradient = loss_and_gradient(narrow, targets)
    exact, exact_gradient = loss_and_gradient(narrow.float(), targets)
    assert torch.equal(loss, exact)
    assert loss.dtype == torch.float32
    assert torch.equal(gradient, exact_gradient.bfloat16())


def test_without_gradients_the_logits_stay_as_they_are(case):
    logits, targets = case
    before = logits.clone()
    with torch.no_grad():
        cross_entropy_sum(logits, targets, IDS)
    assert torch.equal(logits, before)


def test_no_target_at_all_is_a_loss_of_zero_with_a_gradient_of_zero(case):
    logits, targets = case
    loss, gradient = loss_and_gradient(logits, torch.full_like(targets, IGNORE))
    assert loss == 0
    assert not gradient.any()
