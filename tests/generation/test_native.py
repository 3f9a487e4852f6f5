import copy
from dataclasses import replace

import pytest
import torch

from lit_llm.generation import Decoding, Sampling, fast_copy, generate, native
from lit_llm.generation.linear import Int8Linear
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.cache import KVCache
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.layout import Layout
from lit_llm.model.mlp import SwiGLU

# Heads share keys, and no size is a multiple of what a processor computes at once.
SIZES = {"n_layer": 3, "d_model": 38, "n_head": 6, "n_kv_head": 2, "head_dim": 10, "d_ff": 75}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]


def network(*, qk_norm: bool = False, tied: bool = False, **options) -> GPT:
    config = GPTConfig(
        vocab_size=70, max_seq_len=40, qk_norm=qk_norm, tie_embeddings=tied, **SIZES, **options
    )
    gpt = GPT(config)
    init_weights(gpt, 1, config.n_layer)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in gpt.parameters():  # norms too, which begin with ones
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return gpt.eval()


def compiled(gpt: GPT, weights="saved") -> GPT:
    if native.library() is None:
        pytest.skip("no compiler here makes a library of step.cpp: TorchInductor does its work")
    fast = fast_copy(gpt, Decoding(weights=weights, compile=True))
    assert isinstance(fast.step, native.NativeStep)
    return fast


def one_step(fast: GPT, position: int, cache: KVCache, *ids: int) -> torch.Tensor:
    """Logits (B, V) after a token of each row, all at the same position."""
    x_BD = fast.embed.weight[list(ids) or [0]].detach()
    return fast.step(x_BD, torch.full((len(x_BD),), position), cache)


@pytest.mark.parametrize("weights", ["saved", "int8"])
@pytest.mark.parametrize(("qk_norm", "tied"), [(False, True), (True, False)])
def test_a_step_gives_the_answers_of_the_model(weights, qk_norm, tied):
    gpt = network(qk_norm=qk_norm, tied=tied)
    fast = compiled(gpt, weights)
    if weights == "int8":  # the slow way: the rounded weights in an ordinary model
        gpt.lm_head.weight = torch.nn.Parameter(gpt.lm_head.weight.clone())  # not the embedding
        mine = [module for module in gpt.modules() if isinstance(module, torch.nn.Linear)]
        theirs = [module for module in fast.modules() if isinstance(module, Int8Linear)]
        for linear, rounded in zip(mine, theirs, strict=True):
            linear.weight.data = rounded.rounded()
    for prompt in PROMPTS:
        settings = Sampling(max_new_tokens=25)
        (expected,), (found,) = (
            generate(gpt, [prompt], settings),
            generate(fast, [prompt], settings),
        )
        assert found.ids == expected.ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)


@pytest.mark.parametrize("weights", ["saved", "int8"])
def test_in_bfloat16_a_step_is_as_near_to_float32_as_the_model_is(weights):
    exact = network(qk_norm=True)
    for parameter in exact.parameters():
        parameter.data = parameter.data.bfloat16().float()
    fast = compiled(network(qk_norm=True).bfloat16(), weights)
    ids = torch.randint(70, (1, 30), generator=torch.Generator().manual_seed(1))
    cache = KVCache(exact.config, 1, 40, dtype=torch.bfloat16)
    with torch.no_grad():
        expected_TV = exact(ids)[0]
        found_TV = torch.stack(
            [one_step(fast, t, cache, id)[0] for t, id in enumerate(ids[0].tolist())]
        )
    # bfloat16 has 8 bits, int8 rounding is off by up to 1/254 of a row's largest weight
    spread = expected_TV.std()
    assert (found_TV - expected_TV).std() < (0.01 if weights == "saved" else 0.04) * spread


def test_prompt_and_steps_meet_in_one_cache():
    gpt = network()
    fast = compiled(gpt)
    (alone,) = generate(gpt, [[1, 2, 3]], Sampling(max_new_tokens=9))
    batch = generate(fast, [[1, 2, 3], [4]], Sampling(max_new_tokens=9))
    assert batch[0].ids == alone.ids


# fewer than are multiplied at once, as many as a step takes, more
@pytest.mark.parametrize("rows", [2, 16, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_prompts_of_any_length_get_the_answers_of_the_model(rows, dtype):
    gpt = network(qk_norm=True).to(dtype)
    fast = compiled(gpt)
    prompts = [[(3 * row + i) % 70 for i in range(1 + row % 5)] for row in range(rows)]
    settings = Sampling(max_new_tokens=12)
    found, expected = generate(fast, prompts, settings), generate(gpt, prompts, settings)
    for ours, theirs in zip(found, expected, strict=True):
        if dtype == torch.float32:
            assert ours.ids == theirs.ids
        assert ours.logprobs[:2] == pytest.approx(theirs.logprobs[:2], abs=0.05)


def test_matrices_that_fill_tiles_and_such_that_do_not_are_multiplied_alike():
    # widths of whole tiles, and a vocabulary that leaves a part of one
    sizes = {**SIZES, "d_model": 64, "head_dim": 32, "d_ff": 96, "n_head": 4}
    config = GPTConfig(vocab_size=70, max_seq_len=40, **sizes)
    exact = GPT(config).eval()
    init_weights(exact, 1, config.n_layer)
    for parameter in exact.parameters():
        parameter.data = (20 * parameter.data).bfloat16().float()
    fast = compiled(copy.deepcopy(exact).bfloat16())
    ids = [5, 69, 7]
    with torch.no_grad():
        expected_BV = exact(torch.tensor(ids)[:, None])[:, 0]
        plain_BV = copy.deepcopy(exact).bfloat16()(torch.tensor(ids)[:, None])[:, 0]
    rows = 3 if fast.step.fits(KVCache(config, 3, 8, dtype=torch.bfloat16)) else 1
    cache = KVCache(config, rows, 8, dtype=torch.bfloat16)
    found_BV = one_step(fast, 0, cache, *ids[:rows])
    error = (found_BV - expected_BV[:rows]).norm()
    assert error <= 1.2 * (plain_BV[:rows] - expected_BV[:rows]).norm()


def test_only_as_many_rows_as_a_step_is_faster_for_are_its_own(monkeypatch):
    config = network().config
    rows = lambda step, dtype: [  # noqa: E731
        n for n in (1, 2, 16, 17) if step.fits(KVCache(config, n, 8, dtype=dtype))
    ]
    assert rows(compiled(network()).step, torch.float32) == [1, 2, 16]
    assert rows(compiled(network(), "int8").step, torch.float32) == [1]
    for tiles, expected in ((True, [1, 2, 16]), (None, [1])):
        monkeypatch.setattr(native, "tiles_of", lambda library, tiles=tiles: tiles)
        assert rows(compiled(network().bfloat16()).step, torch.bfloat16) == expected


def test_where_the_system_keeps_a_process_from_tiles_there_is_no_library(monkeypatch):
    if native.library() is None:
        pytest.skip("no compiler here makes a library of step.cpp")
    monkeypatch.setattr(native, "tiles_of", lambda library: False)
    assert native.library.__wrapped__() is None


@pytest.mark.parametrize("threads", [1, 3, 7])
def test_threads_may_be_fewer_or_more_than_heads(threads):
    gpt, before = network(), torch.get_num_threads()
    (expected,) = generate(gpt, [[1, 2, 3]], Sampling(max_new_tokens=9))
    torch.set_num_threads(threads)
    try:
        (found,) = generate(compiled(gpt), [[1, 2, 3]], Sampling(max_new_tokens=9))
    finally:
        torch.set_num_threads(before)
    assert found.ids == expected.ids


def test_two_threads_do_not_share_the_size_of_a_cache():
    fast, seen = compiled(network()), []
    real = fast.step._step
    fast.step._step = lambda sizes, *rest: (seen.append(sizes._obj), real(sizes, *rest))
    for slots in (8, 16):  # a thread in the first call would read what the second one wrote
        one_step(fast, 2, KVCache(fast.config, 1, slots))
    assert [sizes.slots for sizes in seen] == [8, 16]


def logits(gpt: GPT) -> torch.Tensor:
    """Of one token, as a step computes it."""
    cache = KVCache(gpt.config, 1, 8, dtype=gpt.embed.weight.dtype)
    with torch.inference_mode():
        return gpt(torch.tensor([[5]]), Layout.cached(torch.tensor([[0]]), 8), cache)[0, 0]


def test_new_values_of_the_weights_are_seen_also_those_of_norms():
    gpt = network(qk_norm=True).bfloat16()
    fast = compiled(gpt)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(logits(fast), logits(gpt), rtol=0, atol=0.1)
    assert logits(fast).std() > 0.5


def test_weights_that_are_replaced_are_found_again():
    other, fast = network(qk_norm=True), compiled(network(qk_norm=True))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    fast.load_state_dict(other.state_dict(), assign=True)
    torch.testing.assert_close(logits(fast), logits(other))


def test_a_copy_of_a_copy_reads_its_own_weights():
    fast = compiled(network())
    expected, second = logits(fast), copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    assert isinstance(second.step, native.NativeStep)
    assert torch.equal(logits(second), expected)
    assert isinstance(compiled(second).step, native.NativeStep)


def test_int8_whose_scales_were_rounded_is_left_to_the_model():
    fast = compiled(network(), "int8").bfloat16()
    assert fast.step is None
    assert logits(fast).isfinite().all()


def test_weights_that_move_are_found_again():
    fast = compiled(network())
    expected = generate(network().bfloat16(), [[1, 2, 3]], Sampling(max_new_tokens=1))[0]
    found = generate(fast.bfloat16(), [[1, 2, 3]], Sampling(max_new_tokens=4))[0]
    assert found.logprobs[0] == pytest.approx(expected.logprobs[0], abs=0.02)
    assert fast.step.fits(KVCache(fast.config, 1, 8, dtype=torch.bfloat16))


def test_a_cache_of_another_kind_is_left_to_the_model():
    step = compiled(network()).step
    config = network().config
    assert step.fits(KVCache(config, 1, 8))
    assert not step.fits(KVCache(config, 1, 8, dtype=torch.bfloat16))
    for other in ({"n_kv_head": 3}, {"head_dim": 8}, {"n_layer": 2}):
        assert not step.fits(KVCache(replace(config, **other), 1, 8))
    longer = KVCache(config, 1, 8)
    longer.slots = 9
    assert not step.fits(longer)


def test_a_position_behind_the_cache_is_refused():
    fast = compiled(network())
    with pytest.raises(IndexError, match="position 8 is outside the cache of 8 slots"):
        one_step(fast, 8, KVCache(fast.config, 1, 8))


def test_weights_that_are_not_a_number_stay_visible():
    gpt = network()
    gpt.blocks[1].mlp.up_proj.weight.data[3, 4] = torch.nan
    fast = compiled(gpt)
    assert one_step(fast, 0, KVCache(gpt.config, 1, 8)).isnan().all()


class Own(GroupedQueryAttention):
    """Computes the same, but who knows."""


def test_a_replaced_part_is_not_known():
    packed = Decoding(weights="packed")
    assert native.is_known(fast_copy(network(), packed))
    assert not native.is_known(fast_copy(network(attention=Own), packed))
    assert not native.is_known(network())  # its linear layers could have hooks


def wider_below(config, layer):
    """An MLP as a user may build it: as wide as the layer says, not the configuration."""
    return SwiGLU(replace(config, d_ff=config.ff_dim - 8 * layer), layer)


def more_heads(config, layer):
    return GroupedQueryAttention(replace(config, n_head=8), layer)


@pytest.mark.parametrize("part", [{"mlp": wider_below}, {"attention": more_heads}])
def test_known_parts_of_other_sizes_are_not_known(part):
    assert not native.is_known(fast_copy(network(**part), Decoding(weights="packed")))


def test_weights_of_several_dtypes_are_not_known():
    packed = Decoding(weights="packed")
    for name in ("blocks.1.mlp.up_proj", "blocks.2.attn.k_norm", "norm", "lm_head"):
        gpt = network(qk_norm=True)
        gpt.get_submodule(name).bfloat16()
        assert not native.is_known(fast_copy(gpt, packed))


def test_fewer_blocks_and_other_epsilons_are_not_known():
    packed = Decoding(weights="packed")
    short, exact = network(), network()
    short.blocks = short.blocks[:2]
    exact.blocks[1].norm_2.eps = 1e-3
    assert not native.is_known(fast_copy(short, packed))
    assert not native.is_known(fast_copy(exact, packed))


def test_hooks_are_called():
    gpt = network()
    gpt.blocks[1].register_forward_hook(lambda *_: None)
    assert not native.is_known(fast_copy(gpt, Decoding(weights="packed")))


class Doubled(GPT):
    """A network of the user's, made of known parts."""

    def forward(self, *inputs):
        return 2 * super().forward(*inputs)


def test_a_subclass_stays_what_it_is():
    gpt = network()
    gpt.__class__ = Doubled
    assert type(fast_copy(gpt, Decoding(compile=True))) is Doubled
