from types import SimpleNamespace

import pytest
import torch

from lit_llm.model.config import GPTConfig
from lit_llm.training.possible import refuse_model


def model(optimizer=torch.optim.AdamW, groups=None, **sizes) -> SimpleNamespace:
    return SimpleNamespace(gpt_config=GPTConfig(**sizes), optimizer=optimizer, groups=groups)


def test_what_an_optimizer_does_not_take_is_said_before_the_data_is_read():
    refuse_model(model(groups={"embedding": {"lr": 0.1, "weight_decay": 0.0}}))

    def falling(groups, lr=-1.0):
        return torch.optim.AdamW(groups, lr=lr)

    with pytest.raises(ValueError, match=r"^model.optimizer: Invalid learning rate: -1"):
        refuse_model(model(falling))
    with pytest.raises(ValueError, match=r"^model.groups.head: Invalid weight_decay value: -2"):
        refuse_model(model(groups={"head": {"weight_decay": -2}}))
    with pytest.raises(
        ValueError, match=r"^model.groups.head.lrr: no such setting; did you mean lr\?"
    ):
        refuse_model(model(groups={"head": {"lrr": 1}}))
    refuse_model(model(groups={"head": {"ns_steps": 3}}))  # Muon's, and AdamW passes it by


def test_a_network_that_fits_no_memory_is_refused_with_its_size():
    # 4 * 2**60 weights in the attention: 1.8e19 bytes
    with pytest.raises(ValueError, match=r"model\.gpt: 4,611,6.* parameters need 18,446,7.* GB"):
        refuse_model(model(d_model=2**30, n_head=1, d_ff=1, n_layer=1, vocab_size=64))
    with pytest.raises(ValueError, match=r"model\.gpt: no such network can be built: .*overflow"):
        refuse_model(model(d_model=2 * 10**12))
    with pytest.raises(ValueError, match="parameters need"):
        refuse_model(model(n_layer=10**12))
