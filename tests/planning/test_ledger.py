import torch

from lit_llm.planning.ghosts import Ghosts
from lit_llm.planning.ledger import Ledger


def test_bytes_are_counted_while_something_holds_them():
    ledger = Ledger()
    with Ghosts("cpu", ledger.see):
        ledger.phase("one")
        x = torch.empty(10)  # 40 bytes
        view = x[2:]
        del x
        ledger.phase("two")
        y = torch.empty(25)  # 100
        del view, y
        ledger.phase("three")
        torch.empty(1)  # 4, and gone at once
    totals = {phase: sum(kinds.values()) for phase, kinds in ledger.peaks().items()}
    assert totals == {"one": 40, "two": 140, "three": 4}


def test_what_a_tensor_was_for_may_be_said_later():
    ledger = Ledger()
    with Ghosts("cpu", ledger.see):
        ledger.phase("all")
        weight, other = torch.empty(10), torch.empty(5, dtype=torch.int64)
        kept = weight.t()
        ledger.name([kept], "weights")
        ledger.name([None, other], "other")
        peak = ledger.peaks()["all"]
    assert (peak["weights"], peak["other"], peak["activations"]) == (40, 40, 0)


def test_casts_of_weights_logits_and_the_residual_stream_are_known_by_what_they_are():
    ledger = Ledger(vocabulary=[11], width=6)
    with Ghosts("cpu", ledger.see):
        ledger.phase("all")
        weight = torch.empty(4, 6)
        ledger.name([weight], "weights")
        cast = weight.bfloat16()
        logits, residual = torch.empty(2, 11), torch.empty(2, 3, 6)
        peak = ledger.peaks()["all"]
        assert len((cast, logits, residual)) == 3  # alive until here
    assert peak["copies"] == 2 * 24
    assert peak["logits"] == 4 * 22
    assert peak["residual"] == 4 * 36
