import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.model.mlp import SwiGLU


def test_swiglu_gates_one_projection_with_the_silu_of_another():
    mlp = SwiGLU(GPTConfig(d_model=2, n_head=1, d_ff=1), layer=0)
    with torch.no_grad():
        mlp.gate_proj.weight.copy_(torch.tensor([[1.0, 0.0]]))
        mlp.up_proj.weight.copy_(torch.tensor([[0.0, 1.0]]))
        mlp.down_proj.weight.copy_(torch.tensor([[1.0], [-10.0]]))
    # gate 2, up 3: silu(2) = 2 / (1 + e^-2) = 1.761594; times 3 = 5.284782
    expected = torch.tensor([5.284782, -52.84782])
    torch.testing.assert_close(mlp(torch.tensor([2.0, 3.0])), expected)


def test_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    mlp = SwiGLU(GPTConfig(d_model=6, n_head=1, d_ff=10), layer=0)
    x, weights = torch.randn(3, 6, requires_grad=True), list(mlp.parameters())
    gate, up, down = weights
    upstream = torch.randn(3, 6)
    hidden = x @ gate.T
    formula = (hidden / (1 + (-hidden).exp()) * (x @ up.T)) @ down.T
    expected = torch.autograd.grad(formula, (x, *weights), upstream)
    found = torch.autograd.grad(mlp(x), (x, *weights), upstream)
    torch.testing.assert_close(found, expected)


def test_a_second_derivative_is_refused():
    mlp = SwiGLU(GPTConfig(d_model=6, n_head=1, d_ff=10), layer=0)
    x = torch.randn(3, 6, requires_grad=True)
    (first,) = torch.autograd.grad(mlp(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        first.sum().backward()
