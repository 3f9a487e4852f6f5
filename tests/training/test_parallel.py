import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT, Block
from lit_llm.model.init import init_weights
from lit_llm.training.parallel import checkpoint_activations, compile_blocks

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
    checkpoint_activations(checkpointed)
    expected, found = gradients(plain), gradients(checkpointed)
    assert expected.keys() == found.keys()  # the parameters keep their names
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (runs.count(plain), runs.count(checkpointed)) == (1, 2)


def test_compiled_blocks_compute_the_same_under_the_same_names(build, monkeypatch):
    plain, compiled = build(), build()
    graphs = []

    def backend(graph, inputs):  # runs what was traced as it is: no C++ compiler is needed
        graphs.append(graph)
        return graph.forward

    compile_block = Block.compile
    monkeypatch.setattr(Block, "compile", lambda self: compile_block(self, backend=backend))
    compile_blocks(compiled)
    expected, found = gradients(plain), gradients(compiled)
    assert list(expected) == list(found)
    for name in expected:
        torch.testing.assert_close(expected[name], found[name])
    assert len(graphs) == 1  # blocks are alike: one compilation serves all of them
