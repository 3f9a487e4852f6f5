import pytest
import torch

from lit_llm.training.gradients import normalize_and_clip


@pytest.fixture
def optimizer():
    first, second = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1, 1))
    first.grad, second.grad = torch.tensor([1.0, -2.0]), torch.tensor([[2.0]])
    return torch.optim.SGD([first, second])


def gradients(optimizer):
    return [p.grad.flatten().tolist() for p in optimizer.param_groups[0]["params"]]


def test_gradients_are_scaled_and_their_norm_is_returned(optimizer):
    # |(1, -2, 2)| = 3, times 4
    norm = normalize_and_clip(optimizer, factor=torch.tensor(4.0), clip_val=None, algorithm="norm")
    assert float(norm) == pytest.approx(12)
    assert gradients(optimizer) == [[4.0, -8.0], [8.0]]


def test_clipping_by_norm_keeps_the_direction(optimizer):
    norm = normalize_and_clip(optimizer, factor=torch.tensor(2.0), clip_val=3.0, algorithm="norm")
    assert float(norm) == pytest.approx(6)  # before clipping
    assert gradients(optimizer)[0] == pytest.approx([1.0, -2.0], rel=1e-5)
    assert gradients(optimizer)[1] == pytest.approx([2.0], rel=1e-5)


def test_a_small_gradient_is_not_clipped(optimizer):
    normalize_and_clip(optimizer, factor=torch.tensor(1.0), clip_val=100.0, algorithm="norm")
    assert gradients(optimizer) == [[1.0, -2.0], [2.0]]


def test_clipping_by_value_bounds_each_entry(optimizer):
    normalize_and_clip(optimizer, factor=torch.tensor(1.0), clip_val=1.5, algorithm="value")
    assert gradients(optimizer) == [[1.0, -1.5], [1.5]]


def test_no_gradient_has_norm_zero():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))])
    norm = normalize_and_clip(optimizer, factor=torch.tensor(1.0), clip_val=1.0, algorithm="norm")
    assert float(norm) == 0
