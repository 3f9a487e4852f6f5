import torch

from lit_llm.optim import Muon
from lit_llm.optim.known import is_known


def test_pytorchs_rules_and_ours_are_known_and_no_others():
    class Mine(torch.optim.AdamW):
        pass

    class Ours(Muon):
        pass

    known = (torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor, torch.optim.Muon, Muon)
    assert all(map(is_known, known))
    assert not any(map(is_known, (Mine, Ours)))
