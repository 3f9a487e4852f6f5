"""The kernel runs on a GPU only (tests/test_gpu.py): here a slow one that obeys its contract."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from lit_llm.model import varlen
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.layout import Layout

# Three rows of 11: three documents; one and padding; one of a single token beside another.
DOCUMENTS = torch.tensor(
    [
        [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
        [0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1],
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    ]
)
BEGINNINGS = [0, 3, 7, 11, 19, 22, 23]
POSITIONS = torch.cat([torch.arange(b - a) for a, b in pairwise([*BEGINNINGS, 33])]).view(3, 11)


def slow_varlen_attn(q, k, v, cu_q, cu_k, max_q, max_k, *, window_size, enable_gqa):
    """One document after the other, as the kernel's documentation describes it."""
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert max_q >= int(cu_q.diff().max())
    out = torch.zeros_like(q)
    for begin, end in pairwise(cu_q.tolist()):
        if begin == end:
            continue
        one = [x[begin:end].transpose(0, 1) for x in (q, k, v)]
        is_causal = window_size == (-1, 0)
        seen = F.scaled_dot_product_attention(*one, is_causal=is_causal, enable_gqa=enable_gqa)
        out[begin:end] = seen.transpose(0, 1)
    return out


@pytest.fixture
def kernel(monkeypatch):
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return slow_varlen_attn(*args, **kwargs)

    monkeypatch.setattr(varlen, "kernel", lambda device: counted)
    return calls


def test_borders_are_where_documents_begin_and_the_rest_is_empty():
    found = varlen.borders(DOCUMENTS, 10)
    assert found.tolist() == [*BEGINNINGS, 33, 33, 33, 33]
    assert found.dtype == torch.int32
    assert varlen.borders(DOCUMENTS, 7).tolist() == [*BEGINNINGS, 33]


def test_equal_numbers_in_two_rows_are_two_documents():
    assert varlen.borders(torch.zeros(2, 3, dtype=torch.int64), 2).tolist() == [0, 3, 6]


def test_too_little_room_is_an_error_and_never_a_wrong_result():
    with pytest.raises(RuntimeError):
        varlen.borders(DOCUMENTS, 6)


def test_documents_are_counted_with_padding_as_one():
    assert varlen.count_documents(DOCUMENTS) == 7


@pytest.mark.parametrize(("documents", "room"), [(1, 64), (64, 64), (65, 128), (129, 256)])
def test_few_batches_differ_in_the_room_for_their_borders(documents, room):
    assert varlen.room_for(documents) == room


def network(**changed) -> GPT:
    sizes = {"n_layer": 2, "d_model": 48, "n_head": 6, "n_kv_head": 2, "d_ff": 56}
    gpt = GPT(GPTConfig(vocab_size=50, max_seq_len=11, **{**sizes, **changed}))
    init_weights(gpt, 3, 2)
    return gpt.bfloat16()


def loss_and_gradients(gpt: GPT, layout: Layout):
    tokens = torch.randint(50, (3, 11), generator=torch.Generator().manual_seed(1))
    gpt.zero_grad()
    logits = gpt(tokens, layout)
    logits.square().mean().backward()
    return logits.detach(), torch.cat([p.grad.float().flatten() for p in gpt.parameters()])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "changed", [{}, {"n_kv_head": None}, {"qk_norm": True}], ids=["shared", "own", "normed"]
)
def test_the_kernel_computes_what_the_mask_says(kernel, changed, bidirectional):
    gpt = network(**changed)
    known = {"bidirectional": bidirectional, "most_documents": 7}
    layout = Layout.packed(DOCUMENTS, POSITIONS, **known)
    masked = Layout(layout.positions_BT, layout.mask_B1TS)
    expected, expected_gradients = loss_and_gradients(gpt, masked)
    assert not kernel
    found, gradients = loss_and_gradients(gpt, layout)
    assert len(kernel) == 2
    assert {call["enable_gqa"] for call in kernel} == {changed.get("n_kv_head", 2) is not None}
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(gradients, expected_gradients, rtol=5e-2, atol=5e-3)


def test_no_document_sees_another(kernel):
    gpt = network()
    layout = Layout.packed(DOCUMENTS, POSITIONS, most_documents=7)
    tokens = torch.randint(50, (3, 11))
    others = torch.where(DOCUMENTS == 1, tokens, (tokens + 1) % 50)
    assert torch.equal(gpt(tokens, layout)[DOCUMENTS == 1], gpt(others, layout)[DOCUMENTS == 1])


@pytest.mark.parametrize("changed", ["dropout", "float32", "head_dim"])
def test_where_the_kernel_cannot_be_used_the_mask_is_read(kernel, changed):
    gpt = network(**{"dropout": {"dropout": 0.1}, "head_dim": {"head_dim": 4}}.get(changed, {}))
    gpt = gpt.float() if changed == "float32" else gpt
    gpt.train()
    gpt(
        torch.zeros(3, 11, dtype=torch.int64), Layout.packed(DOCUMENTS, POSITIONS, most_documents=7)
    )
    assert not kernel


def test_an_unknown_number_of_documents_leaves_the_mask_alone(kernel):
    assert Layout.packed(DOCUMENTS, POSITIONS).documents is None


def test_a_cpu_has_no_such_kernel():
    assert varlen.kernel(torch.device("cpu")) is None
    assert Layout.packed(DOCUMENTS, POSITIONS, most_documents=7).documents is None


def test_a_kernel_that_agrees_with_the_mask_is_used():
    assert varlen.agrees(slow_varlen_attn, torch.device("cpu"))


def test_a_kernel_that_sees_other_documents_or_the_future_is_not_used():
    def all_of_the_batch(q, k, v, cu_q, cu_k, *lengths, **options):
        return slow_varlen_attn(q, k, v, cu_q[[0, -1]], cu_k[[0, -1]], len(q), len(q), **options)

    def both_ways(*tensors, window_size, **options):
        return slow_varlen_attn(*tensors, window_size=(-1, -1), **options)

    for broken in (all_of_the_batch, both_ways):
        assert not varlen.agrees(broken, torch.device("cpu"))


def test_a_kernel_without_the_gradients_of_the_mask_is_not_used():
    def detached(q, *tensors, **options):
        return slow_varlen_attn(q.detach() + 0 * q, *tensors, **options)

    assert not varlen.agrees(detached, torch.device("cpu"))


def test_a_kernel_that_breaks_is_not_used():
    def broken(*_, **__):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    assert not varlen.agrees(broken, torch.device("cpu"))


def test_this_pytorch_has_the_function_that_a_gpu_is_to_call():
    assert varlen.find() is not None
