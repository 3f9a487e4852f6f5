import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from lit_llm.data.batch import IGNORE
from lit_llm.objective import cross_entropy
from lit_llm.objective.cross_entropy import _VocabularyParallel, cross_entropy_sum

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


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_the_logits_are_where_nothing_is_predicted_does_not_matter(case, bad):
    logits, targets = case
    loss, gradient = loss_and_gradient(logits, targets)
    logits[targets == IGNORE] = bad
    spoilt_loss, spoilt_gradient = loss_and_gradient(logits, targets)
    assert torch.equal(spoilt_loss, loss)
    assert torch.equal(spoilt_gradient, gradient)


def test_nan_where_something_is_predicted_is_not_hidden(case):
    logits, targets = case
    logits[0, 3] = float("nan")
    loss, gradient = loss_and_gradient(logits, targets)
    assert loss.isnan()
    assert gradient[0, :IDS].isnan().all()


@pytest.mark.parametrize("target", [-1, -99, IDS])
def test_an_id_that_does_not_exist_is_an_error(case, target):
    logits, targets = case
    targets[2] = target
    with pytest.raises(RuntimeError, match=f"index {target} is out of bounds"):
        loss_and_gradient(logits, targets)


def test_the_weight_of_a_loss_is_not_rounded_to_the_logits_dtype(case):
    logits, targets = case
    _, whole = loss_and_gradient(logits.bfloat16(), targets)
    _, part = loss_and_gradient(logits.bfloat16(), targets, 0.3)
    assert torch.equal(part, (whole.float() * 0.3).bfloat16())
    assert not torch.equal(part, whole * torch.tensor(0.3).bfloat16())


def test_a_second_derivative_is_refused(case):
    logits, targets = case
    leaf = logits.requires_grad_()
    loss = cross_entropy_sum(leaf * 1, targets, IDS)
    (first,) = torch.autograd.grad(loss.square(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_shared_logits_do_not_matter_either_where_nothing_is_predicted(case, group):
    logits, targets = case
    ignored = targets == IGNORE
    logits[ignored] = float("nan")
    leaf = logits[:, :IDS].clone().requires_grad_()
    loss = _VocabularyParallel.apply(leaf, targets, 0, group)
    expected = F.cross_entropy(logits[~ignored, :IDS], targets[~ignored], reduction="sum")
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.square(), leaf, create_graph=True)
    assert gradient.isfinite().all()
    assert not gradient[ignored].any()
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()
