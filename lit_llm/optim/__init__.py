"""What moves the weights: parameter groups, learning-rate schedules, optimizers."""

from lit_llm.optim.muon import Muon
from lit_llm.optim.schedule import Constant, Linear, Schedule, WarmupCosine, WarmupStableDecay

__all__ = ["Constant", "Linear", "Muon", "Schedule", "WarmupCosine", "WarmupStableDecay"]
