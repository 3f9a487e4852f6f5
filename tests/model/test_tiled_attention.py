import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lit_llm.model import tiled_attention
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import Block
from lit_llm.model.layout import Layout
from lit_llm.model.rope import rope_table
from lit_llm.model.tiled_attention import PROMPT, attend, can_attend

needs_tiles = pytest.mark.skipif(
    not tiled_attention.CPU_IS_SUITED, reason="this CPU has no AMX, without which nothing is used"
)
# B, H, T, E: less than 64 keys, whole blocks, blocks and a part, one token
SHAPES = [(2, 3, 37, 32), (1, 2, 128, 64), (2, 2, 150, 96), (1, 1, 1, 64)]


def inputs(B: int, H: int, T: int, E: int, size: float = 1.0) -> list[torch.Tensor]:
    """q, k, v, as a layer has them: values in the order of the residual stream; and a gradient."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).bfloat16()  # noqa: E731
    q, k, g = (draw(B, H, T, E) * size for _ in range(3))
    v = draw(B, T, H, E).transpose(1, 2)
    return [q, k, v, g]


def gradients(call, q, k, v, upstream, dtype=torch.bfloat16) -> tuple[torch.Tensor, ...]:
    leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    return torch.autograd.grad(call(*leaves), leaves, upstream.to(dtype))


def pytorchs(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def by_hand(q, k, v):
    scores = q @ k.mT / q.size(-1) ** 0.5
    future = torch.ones(q.size(2), q.size(2), dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.0, 6.0])  # even and one-sided probabilities
def test_gradients_are_as_near_to_float32_as_pytorchs_own(shape, size):
    case = inputs(*shape, size)
    exact = gradients(by_hand, *case, dtype=torch.float64)
    found, peers = gradients(attend, *case), gradients(pytorchs, *case)
    for one, peer, truth in zip(found, peers, exact, strict=True):
        assert one.shape == truth.shape
        slack = 1e-3 * max(x.norm() for x in exact)  # of one token, q's and k's are zero
        assert (one - truth).norm() <= 1.1 * (peer - truth).norm() + slack


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.0, 6.0])
def test_it_is_as_near_to_float32_as_pytorchs_own(shape, size):
    q, k, v, _ = inputs(*shape, size)
    exact = by_hand(*(x.double() for x in (q, k, v)))
    found, peer = attend(q, k, v), pytorchs(q, k, v)
    assert (found - exact).norm() <= 1.1 * (peer - exact).norm()


@needs_tiles
def test_no_query_sees_the_future():
    q, k, v, _ = inputs(1, 2, 150, 32)
    before = attend(q, k, v)
    k[:, :, 70:], v[:, :, 70:] = 7.0, -7.0
    after = attend(q, k, v)
    assert torch.equal(before[:, :, :70], after[:, :, :70])
    assert not torch.equal(before[:, :, 70:], after[:, :, 70:])


@needs_tiles
def test_no_gradient_of_a_query_knows_a_later_key():
    q, k, v, upstream = inputs(1, 2, 150, 32)
    before = gradients(attend, q, k, v, upstream)[0]
    k[:, :, 70:], v[:, :, 70:] = 7.0, -7.0
    after = gradients(attend, q, k, v, upstream)[0]
    assert torch.equal(before[:, :, :70], after[:, :, :70])
    assert not torch.equal(before[:, :, 70:], after[:, :, 70:])


@needs_tiles
def test_the_number_of_threads_changes_no_bit():
    case, threads = inputs(2, 3, 150, 64), torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(gradients(attend, *case))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_tiles
def test_a_gradient_whose_rows_are_not_contiguous_is_taken():
    q, k, v, upstream = inputs(1, 2, 40, 32)
    strange = upstream.mT.contiguous().mT
    pairs = zip(
        gradients(attend, q, k, v, strange), gradients(attend, q, k, v, upstream), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@needs_tiles
def test_a_second_derivative_is_refused():
    q, k, v, _ = inputs(1, 1, 5, 32)
    (first,) = torch.autograd.grad(
        attend(q.requires_grad_(), k, v).square().sum(), q, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.mark.parametrize(
    ("q", "taken"),
    [
        (torch.ones(1, 1, 1, 64, dtype=torch.bfloat16), True),
        (torch.ones(1, 1, 1, 48, dtype=torch.bfloat16), False),
        (torch.ones(1, 1, 1, 288, dtype=torch.bfloat16), False),
        (torch.ones(1, 1, 1, 64), False),
    ],
)
def test_it_is_for_heads_that_fill_tiles_in_bfloat16(monkeypatch, q, taken):
    monkeypatch.setattr(tiled_attention, "CPU_IS_SUITED", True)
    monkeypatch.setattr(tiled_attention, "_there", True)
    assert can_attend(q) is taken
    with torch.no_grad():  # of a prompt, if it is long
        assert not can_attend(q)
        assert can_attend(q.expand(1, 1, PROMPT, -1)) is taken
    monkeypatch.setattr(tiled_attention, "CPU_IS_SUITED", False)
    assert not can_attend(q)


def test_without_a_library_it_is_not_used(monkeypatch):
    monkeypatch.setattr(tiled_attention, "CPU_IS_SUITED", True)
    monkeypatch.setattr(tiled_attention, "compiled_library", lambda source: None)
    monkeypatch.setattr(tiled_attention, "library", tiled_attention.library.__wrapped__)
    monkeypatch.setattr(tiled_attention, "_there", None)
    assert not can_attend(torch.ones(1, 1, 1, 64, dtype=torch.bfloat16))
    assert tiled_attention._there is False


def test_while_torch_compiles_the_library_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(tiled_attention, "_there", None)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(tiled_attention, "library", lambda: pytest.fail("looked for"))
    assert not tiled_attention.is_there()
    monkeypatch.setattr(tiled_attention, "_there", True)
    assert tiled_attention.is_there()


@pytest.fixture
def block() -> Block:
    tiled_attention.is_there()
    torch.manual_seed(0)
    return Block(GPTConfig(d_model=128, n_head=4, n_kv_head=2, n_layer=1), layer=0)


def of_a_block() -> tuple:
    cos, sin = rope_table(9, 32)
    x = torch.randn(2, 9, 128, requires_grad=True, generator=torch.Generator().manual_seed(1))
    return x, (cos[None, None], sin[None, None]), Layout.plain(x[..., 0])


@needs_tiles
def test_a_layer_takes_it_for_plain_causal_training_alone(monkeypatch):
    taken = []
    monkeypatch.setattr(tiled_attention, "attend", lambda *x: taken.append(1) or pytorchs(*x))
    layer = GroupedQueryAttention(GPTConfig(d_model=128, n_head=4, n_layer=1), layer=0).bfloat16()
    x, rope, plain = of_a_block()
    x = x.bfloat16()
    documents = torch.tensor([[0] * 4 + [1] * 5] * 2)
    layer(x, rope, plain, None)
    assert len(taken) == 1
    layer(x, rope, Layout.packed(documents, plain.positions_BT), None)
    layer(x, rope, Layout(plain.positions_BT, None, is_causal=False), None)
    with torch.no_grad():
        layer(x, rope, plain, None)
    layer.dropout = 0.5
    layer(x, rope, plain, None)
    assert len(taken) == 1


def of_parameters(call, block) -> tuple[torch.Tensor, ...]:
    args = of_a_block()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(*args)
    return torch.autograd.grad(out.square().sum(), [args[0], *block.parameters()])


@needs_tiles
def test_heads_that_share_keys_have_the_gradients_that_pytorch_gives_them(block, monkeypatch):
    found = of_parameters(block, block)
    monkeypatch.setattr(tiled_attention, "CPU_IS_SUITED", False)
    for ours, pytorch in zip(found, of_parameters(block, block), strict=True):
        torch.testing.assert_close(ours, pytorch, rtol=0.05, atol=0.01 * pytorch.abs().max().item())


@needs_tiles
def test_a_block_is_one_graph_for_torch_compile(block):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch._dynamo.explain(block.forward)(*of_a_block())
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@needs_tiles
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_block_has_the_same_gradients_compiled_and_with_its_activations_computed_again(
    block, checkpointing
):
    compiled = torch.compile(block.forward, backend="aot_eager", fullgraph=True)
    again = lambda *args: checkpoint(compiled, *args, use_reentrant=False)  # noqa: E731
    found = of_parameters(again if checkpointing else compiled, block)
    for ours, eager in zip(found, of_parameters(block, block), strict=True):
        torch.testing.assert_close(ours, eager, rtol=0.05, atol=0.01 * eager.abs().max().item())
