import pytest
import torch

from benchmarks.plain_attention import PlainAttention
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.config import GPTConfig
from lit_llm.model.layout import Layout
from lit_llm.model.rope import rope_table

B, T, D = 2, 7, 24
CONFIG = GPTConfig(max_seq_len=T, d_model=D, n_head=3)
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 0]])
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]])
LAYOUTS = {
    "one document": Layout.plain(POSITIONS),
    "several documents": Layout.packed(DOCUMENTS, POSITIONS),
    "seen both ways": Layout.packed(DOCUMENTS, POSITIONS, bidirectional=True),
    "one document, seen both ways": Layout(POSITIONS, None, is_causal=False),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_formula_gives_what_the_fused_kernel_gives(layout):
    torch.manual_seed(0)
    fused, plain = GroupedQueryAttention(CONFIG, 0), PlainAttention(CONFIG, 0)
    plain.load_state_dict(fused.state_dict())
    x = torch.randn(B, T, D)
    cos_TE, sin_TE = rope_table(T, CONFIG.channels_per_head)
    rope = cos_TE[layout.positions_BT][:, None], sin_TE[layout.positions_BT][:, None]
    torch.testing.assert_close(plain(x, rope, layout, None), fused(x, rope, layout, None))
