"""From token ids to more token ids: sampling, batched decoding, scoring and mask filling.

Knows no tokenizer and no Trainer: prompts are ids, and where text is needed a function from one
id to its UTF-8 bytes is passed in.
"""

from lit_llm.generation.fast import Decoding, compile_now, fast_copy
from lit_llm.generation.generate import generate, stream
from lit_llm.generation.infill import Candidate, fill, masked_ids, split_masks
from lit_llm.generation.row import FinishReason, Generated
from lit_llm.generation.sampling import Sampling
from lit_llm.generation.score import score, score_batch

__all__ = [
    "Candidate",
    "Decoding",
    "FinishReason",
    "Generated",
    "Sampling",
    "compile_now",
    "fast_copy",
    "fill",
    "generate",
    "masked_ids",
    "score",
    "score_batch",
    "split_masks",
    "stream",
]
