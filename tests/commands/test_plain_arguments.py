import math

from lit_llm.commands.plain_arguments import takes


def test_a_class_takes_what_its_source_says():
    muon = "lit_llm.optim.Muon"
    assert takes(muon, {"lr": 0.01, "betas": [0.9, 0.99], "ns_steps": 3})
    assert not takes(muon, {"lr": "much"})
    assert not takes(muon, {"lr": True})
    assert not takes(muon, {"betas": [0.9]})
    assert not takes(muon, {"ns_steps": 2.5})
    assert not takes(muon, {"beta": 0.9})
    assert not takes(muon, {"lr": math.inf})
    assert not takes(muon, {"lr": math.nan})
