import pytest
import torch
import torch.nn.functional as F

from lit_llm.data.batch import IGNORE
from lit_llm.objective import cross_entropy, native_cross_entropy
from lit_llm.objective.cross_entropy import cross_entropy_sum
from lit_llm.objective.native_cross_entropy import NativeCrossEntropy, can_compute, library

ROWS, IDS, PADDED = 7, 43, 50


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    if library() is None:
        pytest.skip("no compiler here makes a library of cross_entropy.cpp")
    monkeypatch.setattr(native_cross_entropy, "LEAST", 1)


def case(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, PADDED, generator=generator).to(dtype) * 4
    return logits, torch.tensor([4, IGNORE, 0, 42, 42, IGNORE, 7])


def loss_and_gradient(logits, targets, factor: float = 1.0):
    leaf = logits.clone().requires_grad_()
    loss = cross_entropy_sum(leaf * 1, targets, IDS)  # what it is given, it uses up
    assert type(loss.grad_fn).__name__ == "NativeCrossEntropyBackward"
    (loss * factor).backward()
    return loss.detach(), leaf.grad


def test_it_is_pytorchs_cross_entropy_of_the_ids_that_exist():
    logits, targets = case()
    leaf = logits.clone().requires_grad_()
    expected = F.cross_entropy(leaf[:, :IDS], targets, ignore_index=IGNORE, reduction="sum")
    (expected * -0.3).backward()
    loss, gradient = loss_and_gradient(logits, targets, -0.3)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)
    assert not gradient[:, IDS:].any()
    assert not gradient[targets == IGNORE].any()


def test_bfloat16_logits_are_scored_in_float32():
    narrow, targets = case(torch.bfloat16)
    loss, gradient = loss_and_gradient(narrow, targets)
    exact, exact_gradient = loss_and_gradient(narrow.float(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)
    torch.testing.assert_close(gradient, exact_gradient.bfloat16())


@pytest.mark.parametrize("size", [90.0, 3e38])
def test_one_large_logit_neither_overflows_nor_hides_the_others(size):
    logits = torch.zeros(1, IDS)
    logits[0, 3] = size
    for target, expected in ((3, 0.0), (5, size)):
        loss, gradient = loss_and_gradient(logits, torch.tensor([target]))
        assert loss.item() == pytest.approx(expected)
        assert gradient[0, 5].item() == pytest.approx(-1.0 * (target == 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(dtype, value):
    logits, targets = case(dtype)
    logits[0, 9] = value
    loss, gradient = loss_and_gradient(logits, targets)
    assert loss.isnan()
    assert gradient[0, :IDS].isnan().any()
    assert gradient[2].isfinite().all()


def test_what_is_not_finite_in_a_row_that_does_not_count_is_left_out():
    logits, targets = case()
    logits[1, 0] = float("nan")
    loss, gradient = loss_and_gradient(logits, targets)
    assert loss.isfinite()
    assert not gradient[1].any()


def test_an_id_that_does_not_exist_is_an_error():
    logits, _ = case()
    with pytest.raises(RuntimeError, match="out of bounds"):
        cross_entropy_sum(logits, torch.tensor([IDS] * ROWS), IDS)


def test_the_number_of_threads_changes_no_bit():
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(loss_and_gradient(*case(torch.bfloat16)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_it_takes_many_logits_of_a_cpu_in_whole_rows(monkeypatch):
    logits, _ = case()
    assert can_compute(logits)
    assert not can_compute(logits.double())
    assert not can_compute(logits[:, :IDS])
    assert not can_compute(logits.to("meta"))
    monkeypatch.setattr(native_cross_entropy, "LEAST", logits.numel() + 1)
    assert not can_compute(logits)


def test_without_a_library_pytorchs_operators_compute_the_same(monkeypatch):
    logits, targets = case()
    found = loss_and_gradient(logits, targets)
    monkeypatch.setattr(native_cross_entropy, "library", lambda: None)
    leaf = logits.clone().requires_grad_()
    loss = cross_entropy_sum(leaf * 1, targets, IDS)
    loss.backward()
    assert isinstance(loss.grad_fn, cross_entropy._CrossEntropy._backward_cls)
    torch.testing.assert_close(found, (loss.detach(), leaf.grad))


def test_a_second_derivative_is_refused():
    logits, targets = case()
    leaf = logits.clone().requires_grad_()
    loss = NativeCrossEntropy.apply(leaf * 1, targets, IDS).square()
    (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


def test_the_default_dtype_decides_nothing():
    inputs = case(torch.bfloat16)
    expected = loss_and_gradient(*inputs)
    torch.set_default_dtype(torch.bfloat16)  # as a Trainer in bf16-true has it
    try:
        found = loss_and_gradient(*inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
