from functools import partial

import pytest
import torch
from torch import nn

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.mlp import SwiGLU
from lit_llm.model.size import skeleton
from lit_llm.training.parallel import allocate, checkpoint_activations, compile_blocks

B, T, V, N_LAYER = 2, 5, 13, 3


@pytest.fixture
def build():
    def build(dropout: float = 0.0) -> GPT:
        sizes = {"n_layer": N_LAYER, "d_model": 12, "n_head": 3, "d_ff": 20}
        gpt = GPT(GPTConfig(vocab_size=V, max_seq_len=T, dropout=dropout, **sizes))
        init_weights(gpt, 0, N_LAYER)
        return gpt

    return build


def gradients(gpt: GPT) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # the same dropout, if there is any
    tokens_BT = torch.arange(B * T).view(B, T) % V
    gpt(tokens_BT).square().sum().backward()
    return {name: parameter.grad for name, parameter in gpt.named_parameters()}


def test_activations_that_are_computed_again_give_the_same_gradients(build):
    plain, checkpointed = build(dropout=0.4), build(dropout=0.4)
    runs = []
    for gpt in (plain, checkpointed):
        gpt.blocks[0].mlp.register_forward_hook(lambda *_, gpt=gpt: runs.append(gpt))
    checkpoint_activations(checkpointed, every=1)
    expected, found = gradients(plain), gradients(checkpointed)
    assert expected.keys() == found.keys()  # the parameters keep their names
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (runs.count(plain), runs.count(checkpointed)) == (1, 2)


@pytest.mark.parametrize(
    ("every", "again"), [(0, [1, 1, 1]), (1, [2, 2, 2]), (2, [2, 1, 2]), (3, [2, 1, 1])]
)
def test_every_nth_block_is_computed_again(build, every, again):
    gpt = build()
    runs = [0] * N_LAYER
    for number, block in enumerate(gpt.blocks):
        block.attn.register_forward_hook(lambda *_, n=number: runs.__setitem__(n, runs[n] + 1))
    checkpoint_activations(gpt, every)
    gradients(gpt)
    assert runs == again


def test_compiled_blocks_compute_the_same_under_the_same_names(build, monkeypatch):
    plain, compiled = build(), build()
    graphs = []

    def backend(graph, inputs):  # runs what was traced as it is: no C++ compiler is needed
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compile_blocks(compiled)
    expected, found = gradients(plain), gradients(compiled)
    assert list(expected) == list(found)
    for name in expected:
        torch.testing.assert_close(expected[name], found[name])
    assert len(graphs) == 1  # blocks are alike: one compilation serves all of them


def test_a_skeleton_becomes_the_network_that_was_built_with_values(build):
    expected = build()
    gpt = skeleton(expected.config)
    allocate(gpt, torch.device("cpu"))
    init_weights(gpt, 0, N_LAYER)
    for name, parameter in expected.named_parameters():
        assert torch.equal(gpt.get_parameter(name), parameter)
    for name, buffer in expected.named_buffers():
        assert torch.equal(gpt.get_buffer(name), buffer)


def test_tied_embeddings_stay_one_tensor_when_they_are_allocated():
    gpt = skeleton(GPTConfig(vocab_size=V, n_layer=1, d_model=12, n_head=3, tie_embeddings=True))
    allocate(gpt, torch.device("cpu"))
    assert gpt.lm_head.weight is gpt.embed.weight
    assert gpt.embed.weight.device.type == "cpu"


class Scaled(SwiGLU):
    """A user's part with a value of its own, and no way to set it again."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.scale = nn.Parameter(torch.full((1,), 0.1))


class Windowed(SwiGLU):
    """A user's part with a table."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.register_buffer("window_TS", torch.ones(3, 3).tril())


@pytest.mark.parametrize("part", [Scaled, Windowed])
def test_values_that_would_be_lost_are_refused(part):
    gpt = skeleton(GPTConfig(vocab_size=V, n_layer=1, d_model=12, n_head=3, mlp=part))
    with pytest.raises(ValueError, match=f"{part.__name__} has parameters that are no matrices"):
        allocate(gpt, torch.device("cpu"))
