import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_llm.planning.ghosts import Ghost, Ghosts

B, H, T, E = 2, 3, 7, 8


@pytest.fixture
def ghosts():
    """Names of the operations and shapes of their results."""
    seen: list[tuple[str, tuple]] = []
    with Ghosts("cpu", lambda ghost, func, args: seen.append((str(func), tuple(ghost.shape)))):
        yield seen


def test_everything_made_is_a_ghost_that_says_it_lies_on_the_device(ghosts):
    for tensor in (torch.empty(3), torch.arange(5), torch.tensor(1.0), nn.Linear(2, 3).weight):
        assert isinstance(tensor, Ghost) or isinstance(tensor.data, Ghost)
        assert tensor.device.type == "cpu"


def test_views_share_a_storage_and_copies_do_not(ghosts):
    x = torch.empty(4, 6)
    view, copy = x.t().reshape(6, 4)[1:], x.clone()
    assert view.meta.untyped_storage()._cdata == x.meta.untyped_storage()._cdata
    assert copy.meta.untyped_storage()._cdata != x.meta.untyped_storage()._cdata


def test_an_operation_in_place_gives_its_argument(ghosts):
    x = torch.empty(4)
    assert x.add_(1) is x


def test_gradients_have_the_shapes_and_types_that_real_ones_have(ghosts):
    layer = nn.Linear(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.empty(2, 5))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer.weight.grad.shape == (3, 5)
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_fused_one(ghosts, masked):
    q = torch.empty(B, H, T, E, requires_grad=True)
    mask = torch.ones(B, 1, T, T, dtype=torch.bool) if masked else None
    ghosts.clear()
    F.scaled_dot_product_attention(q, q, q, attn_mask=mask, is_causal=not masked).sum().backward()
    assert any("_scaled_dot_product_flash_attention_for_cpu" in name for name, _ in ghosts)
    assert not any(shape[-2:] == (T, T) and shape[:-2] == (B, H) for _, shape in ghosts)


def test_a_number_is_one_and_a_question_is_answered_by_no(ghosts):
    assert torch.empty(()).item() == 1
    assert not bool((torch.empty(3) == 1).all())


def test_no_memory_is_allocated(ghosts):
    x = torch.zeros(2**40, 2**10)  # a petabyte and more
    assert (x * 2).numel() == 2**50
