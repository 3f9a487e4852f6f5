import runpy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from lit_llm.generation.generate import decode, prefill
from lit_llm.model import attention
from lit_llm.model import causal_attention as module
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.cache import KVCache
from lit_llm.model.causal_attention import QUERIES, attend_one, causal_attention, is_faster
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT, Block
from lit_llm.model.init import init_weights
from lit_llm.model.layout import Layout
from lit_llm.model.rope import rope_table

# less than a block, a block, a block and a part, several
LENGTHS = (5, QUERIES, QUERIES + 3, 3 * QUERIES)


def heads(length: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, length, 6, dtype=dtype, requires_grad=True) for _ in range(3)]


def results(attend, qkv: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output and the three gradients."""
    out = attend(*qkv)
    torch.manual_seed(1)
    return [out, *torch.autograd.grad(out, qkv, torch.randn(out.shape, dtype=out.dtype))]


def by_hand(q, k, v):
    scores = q @ k.mT / q.size(-1) ** 0.5
    future = torch.ones(q.size(2), q.size(2), dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("length", LENGTHS)
def test_it_is_attention_written_out_by_hand(length):
    qkv = heads(length, torch.float32)
    for found, expected in zip(results(causal_attention, qkv), results(by_hand, qkv), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", LENGTHS)
def test_in_bfloat16_it_is_as_near_to_float32_as_pytorchs_own(length):
    exact = results(by_hand, heads(length, torch.float32))
    narrow = [x.bfloat16().detach().requires_grad_() for x in heads(length, torch.float32)]
    fused = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
    ours, pytorchs = results(causal_attention, narrow), results(fused, narrow)
    for found, peer, truth in zip(ours, pytorchs, exact, strict=True):
        assert (found - truth).norm() <= 1.5 * (peer - truth).norm()


def test_no_query_sees_the_future():
    q, k, v = heads(QUERIES + 9, torch.bfloat16)
    before = causal_attention(q, k, v)
    with torch.no_grad():
        k[:, :, 50:], v[:, :, 50:] = 7.0, -7.0
    after = causal_attention(q, k, v)
    assert torch.equal(before[:, :, :50], after[:, :, :50])
    assert not torch.equal(before[:, :, 50:], after[:, :, 50:])


def test_a_layer_takes_it_for_plain_causal_training_in_bfloat16_alone(monkeypatch):
    monkeypatch.setattr(module, "CPU_IS_SUITED", True)
    taken = []
    monkeypatch.setattr(
        attention, "causal_attention", lambda *qkv: taken.append(1) or causal_attention(*qkv)
    )
    config = GPTConfig(d_model=24, n_head=4, n_kv_head=2, n_layer=1)
    layer = GroupedQueryAttention(config, layer=0).bfloat16()
    cos, sin = rope_table(9, 6)
    x = torch.randn(2, 9, 24).bfloat16()
    rope, plain = (cos[None, None], sin[None, None]), Layout.plain(x[..., 0])
    documents = torch.tensor([[0] * 4 + [1] * 5] * 2)
    packed = Layout.packed(documents, plain.positions_BT)

    out = layer(x, rope, plain, None)
    assert len(taken) == 1
    with torch.no_grad():
        without_gradient = layer(x, rope, plain, None)
    layer(x, rope, packed, None)
    layer.float()(x.float(), rope, plain, None)
    assert len(taken) == 1
    torch.testing.assert_close(out, without_gradient, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(("bf16", "amx", "suited"), [(1, 0, True), (0, 0, False), (1, 1, False)])
def test_it_is_for_cpus_that_have_bfloat16_and_no_amx(monkeypatch, bf16, amx, suited):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(bf16))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    assert runpy.run_path(module.__file__)["CPU_IS_SUITED"] is suited
    monkeypatch.setattr(module, "CPU_IS_SUITED", suited)
    assert is_faster(torch.ones(1, 1, 1, 2, dtype=torch.bfloat16)) is suited


def test_without_gradients_it_reads_prompts_that_are_long_enough(monkeypatch):
    monkeypatch.setattr(module, "CPU_IS_SUITED", True)
    short, long = (torch.ones(1, 1, n, 2, dtype=torch.bfloat16) for n in (127, 128))
    with torch.inference_mode():
        assert is_faster(long, reads=True)
        assert not is_faster(long)
        assert not is_faster(short, reads=True)


@pytest.mark.parametrize(("trains", "kept"), [(True, 2 * 3), (False, 0)])
def test_probabilities_are_kept_only_where_there_is_a_backward_pass(trains, kept):
    saved = []
    context = SimpleNamespace(
        needs_input_grad=(trains, False, False), save_for_backward=lambda *xs: saved.extend(xs)
    )
    qkv = heads(2 * QUERIES + 3, torch.float32)
    module._CausalAttention.forward(context, *(x.detach() for x in qkv))
    assert len(saved) == 2 + kept  # keys and values; queries and probabilities of each block


def test_prompts_of_all_lengths_are_read_and_continued_as_pytorch_does_it(monkeypatch):
    config = GPTConfig(vocab_size=50, max_seq_len=140, d_model=24, n_head=6, n_kv_head=2, n_layer=2)
    gpt = GPT(config).bfloat16().eval()
    init_weights(gpt, 1, 2)
    prompts = [[n % 50 for n in range(length)] for length in (3, 131, 128)]  # padded to the longest
    found, taken = [], []
    for name in ("causal_attention", "attend_one"):
        kept = getattr(attention, name)
        spy = lambda *args, name=name, kept=kept: taken.append(name) or kept(*args)  # noqa: E731
        monkeypatch.setattr(attention, name, spy)
    for suited in (True, False):
        monkeypatch.setattr(module, "CPU_IS_SUITED", suited)
        cache = KVCache(config, 3, 140, dtype=torch.bfloat16)
        logits = [prefill(gpt, prompts, cache)]
        positions_B = torch.tensor([len(prompt) for prompt in prompts])
        for token in (7, 8):
            logits.append(decode(gpt, torch.full((3,), token), positions_B, cache))
            positions_B += 1
        found.append(torch.stack(logits))
    # of the last layer no more than the last token is read
    assert taken == ["causal_attention"] + ["attend_one"] * 5
    torch.testing.assert_close(*found, rtol=0.05, atol=0.01)


def test_one_query_a_head_attends_as_pytorch_has_it():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 6, 1, 10), torch.randn(3, 2, 7, 10), torch.randn(3, 2, 7, 10)
    mask = (torch.arange(7) <= torch.tensor([[0], [6], [3]]))[:, None, None]
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(attend_one(q, k, v, mask), expected)
    half = attend_one(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    torch.testing.assert_close(half.float(), expected, rtol=0.03, atol=0.02)


def test_long_rows_are_left_to_pytorch_for_the_memory_that_they_would_keep(monkeypatch):
    monkeypatch.setattr(module, "CPU_IS_SUITED", True)
    assert is_faster(torch.ones(1, 1, 1024, 2, dtype=torch.bfloat16))
    assert not is_faster(torch.ones(1, 1, 1025, 2, dtype=torch.bfloat16))


def test_a_second_derivative_is_refused():
    qkv = heads(5, torch.float32)
    (first,) = torch.autograd.grad(causal_attention(*qkv).square().sum(), qkv[0], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()


@pytest.fixture
def block(monkeypatch):
    monkeypatch.setattr(module, "CPU_IS_SUITED", True)
    torch.manual_seed(0)
    return Block(GPTConfig(d_model=24, n_head=4, n_kv_head=2, n_layer=1), layer=0)


def inputs() -> tuple:
    cos, sin = rope_table(9, 6)
    x = torch.randn(2, 9, 24, requires_grad=True)
    return x, (cos[None, None], sin[None, None]), Layout.plain(x[..., 0])


def test_a_block_is_one_graph_for_torch_compile(block):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch._dynamo.explain(block.forward)(*inputs())
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_block_has_the_same_gradients_compiled_and_with_its_activations_computed_again(
    block, checkpointing
):
    compiled = torch.compile(block.forward, backend="aot_eager", fullgraph=True)
    again = lambda *args: checkpoint(compiled, *args, use_reentrant=False)  # noqa: E731
    args = inputs()
    wanted = [args[0], *block.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = block(*args)
        found = again(*args) if checkpointing else compiled(*args)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, upstream),
        torch.autograd.grad(expected, wanted, upstream),
        rtol=0.02,
        atol=0.02,
    )
