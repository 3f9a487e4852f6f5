import pytest
import torch

from lit_llm.generation import Decoding, Sampling, compile_now, fast_copy, generate, native
from lit_llm.generation.linear import FastLinear, Int8Linear
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
GREEDY = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def gpt(request) -> GPT:
    config = GPTConfig(
        vocab_size=70,
        max_seq_len=40,
        n_layer=2,
        d_model=36,
        n_head=6,
        n_kv_head=2,
        tie_embeddings=request.param,
    )
    gpt = GPT(config)
    init_weights(gpt, 1, config.n_layer)
    return gpt.eval()


def test_packed_weights_give_the_answers_of_the_model(gpt):
    fast = fast_copy(gpt, Decoding(weights="packed"))
    for prompts in (PROMPTS, PROMPTS[:1]):
        expected, found = generate(gpt, prompts, GREEDY), generate(fast, prompts, GREEDY)
        assert [row.ids for row in found] == [row.ids for row in expected]
        for a, b in zip(found, expected, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_a_copy_shares_the_weights_and_leaves_the_model_as_it_is(gpt):
    before = dict(gpt.named_modules())
    fast = fast_copy(gpt, Decoding(weights="packed"))
    assert dict(gpt.named_modules()) == before
    assert not any(isinstance(module, FastLinear) for module in gpt.modules())
    assert fast.embed.weight is gpt.embed.weight
    assert fast.blocks[1].mlp.down_proj.weight is gpt.blocks[1].mlp.down_proj.weight


def test_every_linear_layer_is_replaced(gpt):
    fast = fast_copy(gpt, Decoding(weights="int8", compile=True))
    assert sum(isinstance(module, Int8Linear) for module in fast.modules()) == 2 * 7 + 1
    assert not any(isinstance(module, torch.nn.Linear) for module in fast.modules())


def test_the_default_changes_nothing(gpt):
    fast = fast_copy(gpt, Decoding())
    assert [type(a) for a in fast.modules()] == [type(a) for a in gpt.modules()]


def test_int8_without_compilation_is_refused():
    with pytest.raises(ValueError, match=r"add --decoding\.compile true"):
        Decoding(weights="int8")


class Own(GroupedQueryAttention):
    """An attention that step.cpp does not know, so that TorchInductor compiles it."""


@pytest.mark.slow  # it compiles, twice
@pytest.mark.parametrize("weights", ["saved", "int8"])
def test_the_compiled_step_gives_the_answers_of_the_uncompiled_one(weights):
    sizes = {"n_layer": 2, "d_model": 36, "n_head": 6, "n_kv_head": 2}
    gpt = GPT(GPTConfig(vocab_size=70, max_seq_len=40, attention=Own, **sizes))
    init_weights(gpt, 1, 2)
    fast = fast_copy(gpt.eval(), Decoding(weights=weights, compile=True))
    compile_now(fast)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    if weights == "int8":  # the slow way: the rounded weights in an ordinary model
        for mine, rounded in zip(linears(gpt), int8_linears(fast), strict=True):
            mine.weight.data = rounded.rounded()
    for prompt in PROMPTS:
        (expected,), (found,) = generate(gpt, [prompt], GREEDY), generate(fast, [prompt], GREEDY)
        assert found.ids == expected.ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs  # none compiled anew


def linears(gpt: GPT) -> list[torch.nn.Linear]:
    return [module for module in gpt.modules() if isinstance(module, torch.nn.Linear)]


def int8_linears(gpt: GPT) -> list[Int8Linear]:
    return [module for module in gpt.modules() if isinstance(module, Int8Linear)]


@pytest.mark.slow  # it starts a compilation
def test_a_missing_compiler_is_named(gpt, tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setattr(native, "library", lambda: None)
    no_compiler = {"cpp.cxx": (str(tmp_path / "no-compiler"),), "fx_graph_cache": False}
    with (
        inductor.patch(no_compiler),
        pytest.raises(ValueError, match=r"needs a C\+\+ compiler"),
    ):
        compile_now(fast_copy(gpt, Decoding(compile=True)))
