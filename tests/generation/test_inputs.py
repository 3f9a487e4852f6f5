import contextlib

import pytest
import torch

from lit_llm.generation.inputs import check_ids, check_prompt, evaluating, right_pad
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT


@pytest.fixture
def gpt() -> GPT:
    return GPT(GPTConfig(vocab_size=20, max_seq_len=7, n_layer=2, d_model=12, n_head=2))


def test_rows_are_padded_on_the_right():
    tokens, lengths = right_pad([[5, 6], [7], [8, 9, 10]], torch.device("cpu"))
    assert tokens.tolist() == [[5, 6, 0], [7, 0, 0], [8, 9, 10]]
    assert lengths.tolist() == [2, 1, 3]


def test_every_module_gets_its_own_mode_back_even_after_an_error(gpt):
    gpt.blocks[1].eval()
    with contextlib.suppress(KeyError), evaluating(gpt):
        assert not any(module.training for module in gpt.modules())
        raise KeyError
    assert gpt.training
    assert gpt.blocks[0].attn.training
    assert not gpt.blocks[1].attn.training


def test_the_first_and_the_last_id_exist_and_their_neighbours_do_not():
    check_ids("x", [0, 19], 20)
    for id in (-1, 20):
        with pytest.raises(ValueError, match=f"x: token id {id} is outside .* vocab_size=20"):
            check_ids("x", [3, id], 20)


def test_a_prompt_may_fill_the_context_up_to_the_room_asked_for(gpt):
    check_prompt("prompt 4", [1] * 5, gpt, room=2)
    with pytest.raises(ValueError, match=r"prompt 4 has 6 tokens.*\n.*data.seq_len >= 8"):
        check_prompt("prompt 4", [1] * 6, gpt, room=2)
