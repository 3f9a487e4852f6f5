import pytest
import torch
from torch import Tensor

from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.cache import KVCache
from lit_llm.model.config import GPTConfig
from lit_llm.model.layout import Layout
from lit_llm.model.norm import RMSNorm
from lit_llm.model.rope import Rope, apply_rope, rope_table

# Sizes all differ, so a transposed or mixed-up axis cannot pass by luck.
B, T, D, H, K, E, SLOTS = 2, 7, 22, 6, 3, 10, 9
COS, SIN = rope_table(SLOTS, E)
CONFIG = GPTConfig(d_model=D, n_head=H, n_kv_head=K, head_dim=E, max_seq_len=SLOTS, n_layer=1)


def rope_at(positions_BT: Tensor) -> Rope:
    return COS[positions_BT][:, None], SIN[positions_BT][:, None]


def plain(x: Tensor) -> tuple[Rope, Layout]:
    layout = Layout.plain(x[..., 0])
    return rope_at(layout.positions_BT), layout


@pytest.fixture
def attention() -> GroupedQueryAttention:
    torch.manual_seed(0)
    return GroupedQueryAttention(CONFIG, layer=0)


@pytest.mark.parametrize("kv_heads", [1, 3, 6])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_matches_attention_written_out_by_hand(kv_heads, qk_norm):
    torch.manual_seed(0)
    config = GPTConfig(d_model=D, n_head=H, n_kv_head=kv_heads, head_dim=E, qk_norm=qk_norm)
    attention = GroupedQueryAttention(config, layer=0)
    for norm in (attention.q_norm, attention.k_norm):
        if isinstance(norm, RMSNorm):
            torch.nn.init.normal_(norm.weight)
    x = torch.randn(B, T, D)

    q = attention.q_proj(x).view(B, T, H, E)
    k = attention.k_proj(x).view(B, T, kv_heads, E)
    v = attention.v_proj(x).view(B, T, kv_heads, E).repeat_interleave(H // kv_heads, dim=2)
    if qk_norm:
        q, k = attention.q_norm(q), attention.k_norm(k)
    rope = COS[:T, None], SIN[:T, None]
    q, k = apply_rope(q, rope), apply_rope(k, rope).repeat_interleave(H // kv_heads, dim=2)
    scores = torch.einsum("bthe,bshe->bhts", q, k) / E**0.5
    scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    expected = torch.einsum("bhts,bshe->bthe", scores.softmax(-1), v).reshape(B, T, H * E)

    torch.testing.assert_close(attention(x, *plain(x), None), attention.o_proj(expected))


def test_no_token_sees_the_future(attention):
    x = torch.randn(B, T, D)
    before = attention(x, *plain(x), None)
    x[:, 4:] = torch.randn(B, T - 4, D)
    after = attention(x, *plain(x), None)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_cached_decoding_equals_the_full_forward(attention):
    x = torch.randn(B, T, D)
    full = attention(x, *plain(x), None)
    cache = KVCache(CONFIG, B, SLOTS).layers[0]
    steps = []
    for t in range(T):
        positions = torch.full((B, 1), t)
        layout = Layout.cached(positions, SLOTS)
        steps.append(attention(x[:, t : t + 1], rope_at(positions), layout, cache))
    torch.testing.assert_close(torch.cat(steps, dim=1), full)


def test_a_hidden_key_does_not_change_the_result(attention):
    x = torch.randn(B, T, D)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * B)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]] * B)
    layout = Layout.packed(documents, positions)
    before = attention(x, rope_at(positions), layout, None)
    x[:, :3] = torch.randn(B, 3, D)
    assert torch.equal(before[:, 3:], attention(x, rope_at(positions), layout, None)[:, 3:])


def test_attention_weights_are_dropped_in_training_only():
    torch.manual_seed(0)
    config = GPTConfig(d_model=D, n_head=H, n_kv_head=K, head_dim=E, dropout=0.5)
    attention, x = GroupedQueryAttention(config, layer=0), torch.randn(B, T, D)
    training = attention(x, *plain(x), None)
    attention.eval()
    evaluated = attention(x, *plain(x), None)
    assert not torch.allclose(training, evaluated)
    assert torch.equal(evaluated, attention(x, *plain(x), None))
