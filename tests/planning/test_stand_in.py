import subprocess
import sys

CODE = """
import sys, torch
from lit_llm.planning.stand_in import no_compiler
weight = torch.nn.Parameter(torch.ones(3))
with no_compiler():
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(3)
    optimizer.step()
    torch.empty(2, 3, device="meta").mul(2)
    assert "torch._dynamo.symbolic_convert" not in sys.modules
    assert "sympy.core" not in sys.modules
{rest}
"""


def run(rest: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", CODE.format(rest=rest)], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def test_an_optimizer_steps_without_the_import_and_the_compiler_is_whole_afterwards():
    run(
        "assert 'torch._dynamo' not in sys.modules\n"
        "import torch._dynamo\n"
        "assert torch._dynamo.reset.__module__ == 'torch._dynamo'\n"
        "import sympy\n"
        "assert sympy.Symbol('x') + 1 - sympy.Symbol('x') == 1\n"
        "from torch.fx.experimental.symbolic_shapes import ShapeEnv, guard_or_false\n"
        "assert guard_or_false is not bool\n"
        "assert not hasattr(torch.utils.checkpoint.checkpoint.__wrapped__, '__dynamo_disable')"
    )


def test_code_that_needs_the_compiler_gets_it():
    run(
        "    assert torch._dynamo.is_compiling() is False\n"
        "assert 'torch._dynamo.utils' in sys.modules"
    )
