import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.lora import (
    Lora,
    LoraLinear,
    add_adapters,
    cast_frozen,
    init_adapters,
    is_adapter,
    learned_of,
    merge,
)
from lit_llm.optim.groups import parameter_groups

SIZES = {"vocab_size": 50, "max_seq_len": 9, "n_layer": 2, "d_model": 24, "n_head": 6}
SIZES |= {"n_kv_head": 2, "d_ff": 20}
ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def network(**settings) -> GPT:
    gpt = GPT(GPTConfig(**SIZES | settings))
    init_weights(gpt, 5, gpt.config.n_layer)
    return gpt


def tokens() -> Tensor:
    return torch.arange(18).view(2, 9) * 7 % 50


def randomize_b(gpt: GPT, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in gpt.named_parameters():
        if name.endswith("lora_B"):
            parameter.data.normal_(std=0.3, generator=generator)


def test_a_layer_by_hand():
    linear = nn.Linear(2, 3, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    layer = LoraLinear(linear, Lora(rank=1, alpha=0.5))
    layer.lora_A.data = torch.tensor([[2.0, -1.0]])
    layer.lora_B.data = torch.tensor([[1.0], [0.0], [-4.0]])
    # W x = (8, 18, 28); A x = 1; half of B is (0.5, 0, -2)
    assert layer(torch.tensor([2.0, 3.0])).tolist() == [8.5, 18.0, 26.0]


@pytest.mark.parametrize("settings", [{}, {"qkv_bias": True}, {"tie_embeddings": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_begins_as_the_network_that_it_adapts_bit_for_bit(settings, dtype):
    gpt = network(**settings).to(dtype)
    expected = gpt(tokens())
    add_adapters(gpt, Lora(rank=3, targets="all", dropout=0.5))
    init_adapters(gpt, 0)
    assert sum(map(is_adapter, gpt.state_dict())) == 2 * 2 * 7
    assert torch.equal(gpt(tokens()), expected)


def test_first_values_are_those_of_the_paper_and_of_nothing_but_seed_and_name():
    few, many, other = network(), network(), network()
    add_adapters(few, Lora(rank=64, targets=["q_proj"]))
    add_adapters(many, Lora(rank=64, targets="all"))
    add_adapters(other, Lora(rank=64, targets="all"))
    torch.manual_seed(0)
    init_adapters(few, 1)
    init_adapters(many, 1)
    init_adapters(other, 2)
    a = few.blocks[1].attn.q_proj.lora_A.detach()
    assert torch.equal(a, many.blocks[1].attn.q_proj.lora_A)
    assert not torch.equal(a, other.blocks[1].attn.q_proj.lora_A)
    assert not torch.equal(a, few.blocks[0].attn.q_proj.lora_A)
    # peft calls kaiming_uniform_(a=sqrt(5)): uniform up to 1 / sqrt(24)
    reference = nn.init.kaiming_uniform_(torch.empty(64, 24), a=math.sqrt(5))
    assert a.abs().max() <= 24**-0.5
    assert float(a.std()) == pytest.approx(float(reference.std()), rel=0.05)
    assert not few.blocks[1].attn.q_proj.lora_B.any()


@pytest.mark.parametrize("tied", [True, False])
def test_only_adapters_have_gradients_and_a_place_in_the_optimizer(tied):
    gpt = network(tie_embeddings=tied)
    add_adapters(gpt, Lora(targets=["v_proj"], rank=4))
    init_adapters(gpt, 0)
    randomize_b(gpt)
    gpt(tokens()).square().sum().backward()
    with_gradient = [name for name, p in gpt.named_parameters() if p.grad is not None]
    assert with_gradient == [
        f"blocks.{layer}.attn.v_proj.lora_{kind}" for layer in (0, 1) for kind in "AB"
    ]
    (group,) = parameter_groups(gpt)
    assert group["kind"] == "matrix"
    assert [p.shape for p in group["params"]] == [(4, 24), (8, 4)] * 2


def test_gradients_are_those_of_the_product():
    gpt, lora = network(), Lora(rank=3, alpha=6.0, targets="all")
    add_adapters(gpt, lora)
    init_adapters(gpt, 0)
    randomize_b(gpt)
    gpt(tokens()).square().sum().backward()

    # PyTorch's own derivative of the same network whose weights are W + 2 B A, as functions of A, B
    leaves = {
        name: p.detach().clone().requires_grad_()
        for name, p in gpt.named_parameters()
        if is_adapter(name)
    }
    weights = {}
    for name, p in network().named_parameters():
        layer = name.removesuffix(".weight")
        weights[name] = p.detach()
        if f"{layer}.lora_A" in leaves:
            weights[name] = p + 2.0 * leaves[f"{layer}.lora_B"] @ leaves[f"{layer}.lora_A"]
    torch.func.functional_call(network(), weights, (tokens(),)).square().sum().backward()
    assert len(leaves) == 28
    for name, leaf in leaves.items():
        torch.testing.assert_close(gpt.get_parameter(name).grad, leaf.grad, rtol=1e-4, atol=1e-4)


def test_merged_weights_are_w_plus_the_scaled_product_and_compute_the_same():
    gpt, lora = network(qkv_bias=True), Lora(rank=3, alpha=1.5, targets=["k_proj", "down_proj"])
    base = {name: weight.clone() for name, weight in gpt.state_dict().items()}
    add_adapters(gpt, lora)
    init_adapters(gpt, 0)
    randomize_b(gpt)
    state = merge(base, learned_of(gpt.state_dict(), lora), lora.scale)
    assert state.keys() == base.keys()
    layer = gpt.blocks[1].mlp.down_proj
    by_hand = base["blocks.1.mlp.down_proj.weight"].clone()
    for out in range(24):
        for into in range(20):
            for r in range(3):
                by_hand[out, into] += 0.5 * layer.lora_B[out, r] * layer.lora_A[r, into]
    torch.testing.assert_close(state["blocks.1.mlp.down_proj.weight"], by_hand)
    assert torch.equal(state["blocks.1.attn.q_proj.weight"], base["blocks.1.attn.q_proj.weight"])
    plain = network(qkv_bias=True)
    plain.load_state_dict(state)
    expected = gpt(tokens())
    assert not torch.allclose(expected, network(qkv_bias=True)(tokens()), atol=1e-3)
    assert float((plain(tokens()) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_bfloat16_base_is_merged_in_float32():
    base, a, b = torch.ones(2, 2).bfloat16(), torch.ones(1, 2) / 1000, torch.ones(2, 1)
    adapters = {"l.lora_A": a, "l.lora_B": b}
    state = merge({"l.weight": base, "other": base}, adapters, 1.0)
    assert state["l.weight"].tolist() == [[pytest.approx(1.001)] * 2] * 2  # bfloat16: 1.0
    assert state["other"].dtype == torch.float32


@pytest.mark.parametrize("tied", [True, False])
def test_parts_that_learn_as_a_whole_have_gradients_too_and_replace_those_of_the_base(tied):
    gpt, lora = network(tie_embeddings=tied), Lora(targets=["v_proj"], whole=("embed", "lm_head"))
    base = {name: weight.clone() for name, weight in gpt.state_dict().items()}
    add_adapters(gpt, lora)
    init_adapters(gpt, 0)
    gpt(tokens()).square().sum().backward()
    learning = {name for name, p in gpt.named_parameters() if p.grad is not None}
    adapters = {f"blocks.{layer}.attn.v_proj.lora_{kind}" for layer in (0, 1) for kind in "AB"}
    assert learning == adapters | ({"embed.weight"} if tied else {"embed.weight", "lm_head.weight"})
    kinds = {group["kind"] for group in parameter_groups(gpt)}
    assert kinds == ({"embedding", "matrix"} if tied else {"embedding", "head", "matrix"})
    torch.optim.SGD(gpt.parameters(), lr=0.1).step()
    learned = learned_of(gpt.state_dict(), lora)
    assert learned.keys() == adapters | {"embed.weight", "lm_head.weight"}
    state = merge(base, learned, lora.scale)
    assert torch.equal(state["embed.weight"], gpt.embed.weight)
    assert not torch.equal(state["embed.weight"], base["embed.weight"])
    assert torch.equal(state["norm.weight"], base["norm.weight"])


def test_a_tied_head_learns_with_its_embedding_or_not_at_all():
    with pytest.raises(ValueError, match="which is the embedding here"):
        add_adapters(network(tie_embeddings=True), Lora(whole=("lm_head",)))


def test_adapters_without_a_weight_are_refused():
    with pytest.raises(ValueError, match=r"other\.lora_A belongs to no weight"):
        merge({"l.weight": torch.ones(2, 2)}, {"other.lora_A": torch.ones(1, 2)}, 1.0)


def test_dropout_is_on_the_input_of_the_adapters_alone():
    layer = LoraLinear(nn.Linear(40, 3, bias=False), Lora(rank=2, alpha=4.0, dropout=0.75))
    nn.init.normal_(layer.lora_A)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(5, 40)
    torch.manual_seed(1)
    found = layer(x)
    torch.manual_seed(1)
    kept = F.dropout(x, 0.75)
    expected = x @ layer.weight.T + 2.0 * (kept @ layer.lora_A.T) @ layer.lora_B.T
    torch.testing.assert_close(found, expected)
    layer.eval()
    torch.testing.assert_close(
        layer(x), x @ layer.weight.T + 2.0 * (x @ layer.lora_A.T) @ layer.lora_B.T
    )


def test_frozen_matrices_in_bfloat16_change_no_bit_under_autocast():
    results = []
    for cast in (False, True):
        gpt = network()
        add_adapters(gpt, Lora(targets=["q_proj"]))
        if cast:
            cast_frozen(gpt, torch.bfloat16)
        init_adapters(gpt, 0)
        randomize_b(gpt)
        with torch.autocast("cpu", torch.bfloat16):
            logits = gpt(tokens())
        logits.square().sum().backward()
        results.append((logits, gpt.blocks[0].attn.q_proj.lora_A.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    dtypes = {name: p.dtype for name, p in gpt.named_parameters()}
    assert [name for name, dtype in dtypes.items() if dtype == torch.bfloat16] == [
        f"blocks.{n}.{part}.{layer}.weight"
        for n in (0, 1)
        for part, layers in (("attn", "qkvo"), ("mlp", ("gate", "up", "down")))
        for layer in (f"{name}_proj" for name in layers)
    ]


def test_a_target_that_no_block_has_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=rf"linear layer 'query': use {', '.join(ALL)}, or all"):
        add_adapters(network(), Lora(targets=["q_proj", "query"]))


class Shared(nn.Module):
    """An MLP whose two matrices are one parameter."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.first = nn.Linear(config.d_model, config.d_model, bias=False)
        self.second = nn.Linear(config.d_model, config.d_model, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.second(self.first(x_BTD).relu())


def test_a_layer_that_shares_its_weight_is_refused():
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.first shares its weight"):
        add_adapters(network(mlp=Shared), Lora(targets="all"))
    add_adapters(network(mlp=Shared), Lora(targets=["q_proj"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "lora.rank=0 is no size: give 1 or more"),
        ({"alpha": 0.0}, "lora.alpha=0.0 must be a number above 0"),
        ({"dropout": 1.0}, "lora.dropout=1.0 is no share"),
        ({"targets": []}, "lora.targets is empty"),
        ({"whole": ["head"]}, "lora.whole: there is no 'head': use embed, lm_head, norm"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Lora(**settings)
