from functools import partial
from types import SimpleNamespace

import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.optim import Muon
from lit_llm.planning.possible import refuse_model
from lit_llm.training.module import LitLLM


def model(optimizer=torch.optim.AdamW, groups=None, **sizes) -> SimpleNamespace:
    config = GPTConfig(**sizes)
    return SimpleNamespace(gpt_config=config, lora=None, optimizer=optimizer, groups=groups)


def test_what_an_optimizer_does_not_take_is_said_before_the_data_is_read():
    refuse_model(model(groups={"embedding": {"lr": 0.1, "weight_decay": 0.0}}))

    falling = partial(torch.optim.AdamW, lr=-1.0)
    with pytest.raises(ValueError, match=r"^model.optimizer.lr: Invalid .*; give 0 or more$"):
        refuse_model(model(falling))
    with pytest.raises(ValueError, match=r"^model.groups.head.weight_decay: .* -2; give 0"):
        refuse_model(model(groups={"head": {"weight_decay": -2}}))
    with pytest.raises(
        ValueError, match=r"^model.groups.head.lrr: no such setting; did you mean lr\?"
    ):
        refuse_model(model(groups={"head": {"lrr": 1}}))
    refuse_model(model(groups={"head": {"ns_steps": 3}}))  # Muon's, and AdamW passes it by


class OfLr(torch.optim.AdamW):
    """Takes one setting when it is built, and all of AdamW's in a group."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr=lr)


class OfTwo(torch.optim.AdamW):
    """Cannot be built of one group."""

    def __init__(self, params, lr=1e-3):
        matrices, others = params
        super().__init__([matrices, others], lr=lr)


def given(rule, **settings):
    """A factory as the command line makes it."""
    return partial(lambda kind, groups, **more: kind(groups, **more), rule, **settings)


def test_the_users_own_optimizer_is_not_tried_out():
    refuse_model(model(given(OfLr), groups={"embedding": {"betas": [0.8, 0.9]}}))
    refuse_model(model(given(OfTwo, lr=0.1)))
    refuse_model(model(lambda groups: OfTwo(groups)))
    for rule in (torch.optim.AdamW, Muon):
        with pytest.raises(ValueError, match=r"^model.optimizer.*lr.*-1"):
            refuse_model(model(given(rule, lr=-1.0)))


def test_a_network_may_be_as_large_as_all_machines_together(monkeypatch):
    monkeypatch.setattr("lit_llm.planning.possible.machine_memory", lambda: 10**6)
    sizes = {"d_model": 128, "n_head": 2, "d_ff": 512, "n_layer": 10, "vocab_size": 64}
    with pytest.raises(ValueError, match="this machine has 0 GB"):
        refuse_model(model(**sizes))  # 2 to 3 million parameters; four times 1 MB is the limit
    with pytest.raises(ValueError, match="2 machines like this one have"):
        refuse_model(model(**sizes), nodes=2)
    refuse_model(model(**sizes), nodes=4)
    monkeypatch.setattr("lit_llm.planning.possible.machine_memory", lambda: None)
    refuse_model(model(**sizes))  # where nobody knows


def test_a_network_that_fits_no_memory_is_refused_with_its_size():
    # 4 * 2**60 weights in the attention: 1.8e19 bytes
    with pytest.raises(ValueError, match=r"model\.gpt: 4,611,6.* parameters need 18,446,7.* GB"):
        refuse_model(model(d_model=2**30, n_head=1, d_ff=1, n_layer=1, vocab_size=64))
    with pytest.raises(ValueError, match=r"model\.gpt: no such network can be built: .*overflow"):
        refuse_model(model(d_model=2 * 10**12))
    with pytest.raises(ValueError, match="parameters need"):
        refuse_model(model(n_layer=10**12))


def test_layers_that_see_all_beside_windows_are_possible():
    config = GPTConfig(n_layer=4, d_model=16, n_head=2, sliding_window=4, full_layers=2)
    refuse_model(LitLLM(config))
