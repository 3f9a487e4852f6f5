import pytest
import torch
from torch import Tensor, nn

from lit_llm.model.attention import Attention, GroupedQueryAttention
from lit_llm.model.cache import KVCache
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.layout import Layout
from lit_llm.model.rope import rope_table

B, T, V = 2, 11, 70
SIZES = {"vocab_size": V, "max_seq_len": 17, "n_layer": 3, "d_model": 44, "n_head": 6}


def build(**settings) -> GPT:
    config = GPTConfig(**SIZES | {"n_kv_head": 3, "head_dim": 10, "qk_norm": True} | settings)
    gpt = GPT(config)
    init_weights(gpt, seed=1, n_layer=config.n_layer)
    for parameter in gpt.parameters():  # 0.02 leaves attention nearly uniform: tests would see less
        parameter.data.mul_(5 if parameter.dim() == 2 else 1)
    return gpt.eval()


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return build()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_logits_are_float32_and_cover_the_tokens_that_exist(gpt, tokens):
    assert gpt.embed.weight.shape == (128, 44)  # 70 rows rounded up to a multiple of 64
    logits = gpt(tokens)
    assert logits.shape == (B, T, V)
    assert logits.dtype == torch.float32
    assert build().bfloat16()(tokens).dtype == torch.float32


@torch.no_grad()
def test_no_token_sees_the_future(gpt, tokens):
    before = gpt(tokens)
    tokens[:, 6:] = (tokens[:, 6:] + 1) % V
    after = gpt(tokens)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] != after[:, 6:]).any(dim=-1).all()


@torch.no_grad()
def test_cached_equals_uncached(gpt, tokens):
    """Rows of 5 and 3 tokens are read at once, padded to 5; then each goes on at its own place."""
    lengths = torch.tensor([5, 3])
    cache = KVCache(gpt.config, B, slots=13)
    positions = torch.arange(5).expand(B, 5)
    prefilled = gpt(tokens[:, :5], Layout.cached(positions, 13), cache)
    full = gpt(tokens)
    torch.testing.assert_close(prefilled, full[:, :5], rtol=0, atol=1e-5)
    for step in range(6):
        at = (lengths + step)[:, None]
        new = gpt(tokens.gather(1, at), Layout.cached(at, 13), cache)[:, 0]
        expected = full[torch.arange(B), at[:, 0]]
        torch.testing.assert_close(new, expected, rtol=0, atol=1e-5)


class Forgetful(GroupedQueryAttention):
    """Cannot write keys and values alone."""

    def remember(self, x_BTD, rope, layout, cache):
        return False


class Changed(GroupedQueryAttention):
    """Makes keys of something else; what it inherits must not be mistaken for its own."""

    def forward(self, x_BTD, rope, layout, cache):
        return super().forward(x_BTD * torch.linspace(0.5, 2, x_BTD.size(-1)), rope, layout, cache)


def hooked(config, layer):
    attention = GroupedQueryAttention(config, layer)
    attention.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
    return attention


@pytest.mark.parametrize("attention", [GroupedQueryAttention, Forgetful, Changed, hooked])
@torch.no_grad()
def test_one_result_of_each_row_is_that_of_the_whole_and_the_cache_too(tokens, attention):
    gpt = build(attention=attention)
    positions_B = torch.tensor([10, 4])
    layout = Layout.prefill(torch.arange(T).expand(B, T), 13)
    cache, other = KVCache(gpt.config, B, 13), KVCache(gpt.config, B, 13)
    whole_BTV = gpt(tokens, layout, cache)
    some_B1V = gpt(tokens, layout, other, only_B=positions_B)
    assert some_B1V.shape == (B, 1, V)
    expected_BV = whole_BTV[torch.arange(B), positions_B]
    torch.testing.assert_close(some_B1V[:, 0], expected_BV, rtol=0, atol=1e-5)
    for ours, theirs in zip(other.layers, cache.layers, strict=True):
        torch.testing.assert_close(ours.k_BKSE, theirs.k_BKSE)
        torch.testing.assert_close(ours.v_BKSE, theirs.v_BKSE)


@torch.no_grad()
def test_a_hook_of_the_last_block_is_called_before_its_weights_are_used(gpt, tokens):
    # FSDP2 gathers them there, and before the keys of the prompt are made of them
    handle = gpt.blocks[-1].register_forward_pre_hook(lambda _, args: (args[0] * 2, *args[1:]))
    layout = Layout.prefill(torch.arange(T).expand(B, T), 13)
    cache, other = KVCache(gpt.config, B, 13), KVCache(gpt.config, B, 13)
    whole_BTV = gpt(tokens, layout, cache)
    some_B1V = gpt(tokens, layout, other, only_B=torch.tensor([10, 4]))
    handle.remove()
    torch.testing.assert_close(some_B1V[0, 0], whole_BTV[0, 10], rtol=0, atol=1e-5)
    torch.testing.assert_close(other.layers[-1].k_BKSE, cache.layers[-1].k_BKSE)


@torch.no_grad()
def test_of_one_result_the_last_block_computes_no_other(gpt, tokens):
    lengths = []
    handle = gpt.blocks[-1].mlp.register_forward_hook(lambda *io: lengths.append(io[-1].size(1)))
    cache = KVCache(gpt.config, B, 13)
    layout = Layout.prefill(torch.arange(T).expand(B, T), 13)
    gpt(tokens, layout, cache, only_B=torch.tensor([3, 4]))
    handle.remove()
    assert lengths == [1]


PACKED = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, -1]])
PLACES = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1], [0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 0]])


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_packed_documents_equal_one_document_at_a_time(gpt, tokens, bidirectional):
    packed = gpt(tokens, Layout.packed(PACKED, PLACES, bidirectional=bidirectional))
    for row in range(B):
        for document in range(int(PACKED[row].max()) + 1):
            inside = PACKED[row] == document
            alone = tokens[row, inside][None]
            places = torch.arange(alone.size(1))[None]
            layout = Layout.packed(torch.zeros_like(alone), places, bidirectional=bidirectional)
            torch.testing.assert_close(
                packed[row, inside], gpt(alone, layout)[0], rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_changing_one_document_moves_no_other_documents_logits(gpt, tokens, bidirectional):
    layout = Layout.packed(PACKED, PLACES, bidirectional=bidirectional)
    before = gpt(tokens, layout)
    changed = (PACKED == 1) & (torch.arange(B)[:, None] == 0)
    after = gpt(torch.where(changed, (tokens + 1) % V, tokens), layout)
    assert torch.equal(before[~changed], after[~changed])
    assert (before[changed] != after[changed]).any(dim=-1).all()


@torch.no_grad()
def test_a_bidirectional_token_sees_both_sides(gpt, tokens):
    places = torch.arange(T).expand(B, T)
    layout = Layout.packed(torch.zeros_like(tokens), places, bidirectional=True)
    before = gpt(tokens, layout)[:, 5]
    for side in (0, T - 1):
        changed = tokens.clone()
        changed[:, side] = (changed[:, side] + 1) % V
        assert (before != gpt(changed, layout)[:, 5]).any(dim=-1).all()


@torch.no_grad()
def test_padding_changes_nothing(gpt, tokens):
    documents = torch.where(torch.arange(T) < 7, 0, -1).expand(B, T)
    layout = Layout.packed(documents, torch.arange(T).expand(B, T))
    torch.testing.assert_close(gpt(tokens, layout)[:, :7], gpt(tokens[:, :7]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_head_gets_the_hidden_states_and_the_projection(gpt, tokens):
    hidden = gpt(tokens, head=lambda hidden, project: hidden)
    assert hidden.shape == (B, T, 44)
    last = gpt(tokens, head=lambda hidden, project: project(hidden[:, -1]))
    torch.testing.assert_close(last, gpt(tokens)[:, -1])


def test_a_row_longer_than_the_context_is_refused(gpt):
    with pytest.raises(ValueError, match="a row of 18 tokens is longer than max_seq_len=17"):
        gpt(torch.zeros(1, 18, dtype=torch.int64))


def test_tied_embeddings_are_one_parameter():
    tied, untied = build(tie_embeddings=True), build()
    assert tied.lm_head.weight is tied.embed.weight
    difference = sum(p.numel() for p in untied.parameters()) - sum(
        p.numel() for p in tied.parameters()
    )
    assert difference == 128 * 44


def test_rope_tables_stay_float32_in_a_bfloat16_model():
    gpt = build().bfloat16()
    assert gpt.embed.weight.dtype == torch.bfloat16
    cos, sin = rope_table(17, 10)
    assert torch.equal(gpt.cos_SE, cos)
    assert torch.equal(gpt.sin_SE, sin)


@torch.no_grad()
def test_a_model_built_on_the_meta_device_equals_one_built_at_once(gpt, tokens):
    with torch.device("meta"):
        empty = GPT(gpt.config)
    empty.to_empty(device="cpu").load_state_dict(gpt.state_dict())
    assert torch.equal(empty.eval()(tokens), gpt(tokens))


def test_a_checkpoint_holds_parameters_only(gpt):
    assert gpt.state_dict().keys() == {name for name, _ in gpt.named_parameters()}


@torch.no_grad()
def test_the_cache_works_under_autocast(gpt, tokens):
    """Keys come out of autocast as bfloat16, the cache is as wide as the weights."""
    layout = Layout.cached(torch.arange(T).expand(B, T), T)
    with torch.autocast("cpu", torch.bfloat16):
        logits = gpt(tokens, layout, KVCache(gpt.config, B, T))
    assert (logits - gpt(tokens)).abs().max() < 0.1 * gpt(tokens).abs().max()


@torch.no_grad()
def test_dropout_is_off_in_eval_mode_and_on_in_training(tokens):
    gpt = build(dropout=0.3)
    assert torch.equal(gpt(tokens), build()(tokens))
    gpt.train()
    assert not torch.equal(gpt(tokens), gpt(tokens))


class Mean(Attention):
    """A stranger's attention: the mean of what came before."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BTD, rope, layout, cache):
        return x_BTD.cumsum(1) / torch.arange(1, x_BTD.size(1) + 1)[:, None]


class Nothing(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()

    def forward(self, x_BTD):
        return torch.zeros_like(x_BTD)


@torch.no_grad()
def test_attention_and_mlp_can_be_replaced(tokens):
    gpt = build(attention=Mean, mlp=Nothing)
    assert [block.attn.layer for block in gpt.blocks] == [0, 1, 2]
    x = gpt.embed(tokens)
    for block in gpt.blocks:
        x = x + Mean.forward(block.attn, block.norm_1(x), None, None, None)
    torch.testing.assert_close(gpt(tokens), gpt.project(gpt.norm(x)))
