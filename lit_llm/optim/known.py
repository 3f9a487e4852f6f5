"""Which optimizers may be tried out without their owner's consent."""

from __future__ import annotations

from torch.optim import Optimizer

from lit_llm.optim.muon import Muon


def is_known(rule: type[Optimizer]) -> bool:
    """Whether a rule is PyTorch's or ours, and not a subclass of one.

    Of these it is known that they take any group, and that a step keeps to its own process and to
    its parameters and their state. Another one may want other groups than a trial has, ask the
    other processes for something, or keep what it was given.
    """
    return rule is Muon or f"{rule.__module__}.".startswith("torch.optim.")
