"""What is learned: batch and model in, a sum of losses and its count out."""

from lit_llm.objective.base import LossSums, Objective
from lit_llm.objective.causal import CausalLM
from lit_llm.objective.masked import MaskedLM

__all__ = ["CausalLM", "LossSums", "MaskedLM", "Objective"]
