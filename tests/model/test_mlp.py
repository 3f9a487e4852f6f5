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
