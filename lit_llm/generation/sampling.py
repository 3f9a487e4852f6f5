"""From logits to the next token, in pure functions of (B, V) logits.

The order of the steps is that of Hugging Face's `generate`: repetition penalty, temperature,
top-k, top-p, min-p, draw.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to continue a prompt. The defaults are greedy: the likeliest token, every time."""

    max_new_tokens: int = 128
    """Tokens to generate at most; the context may end sooner."""

    temperature: float = 0.0
    """0 takes the likeliest token (top_k, top_p, min_p and seed then change nothing); 1 draws from
    the model's own distribution; below 1 sharpens it, above 1 flattens it."""

    top_k: int | None = None
    """Draw from the k likeliest tokens; null keeps all."""

    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability (nucleus sampling,
    Holtzman et al., 2020, arXiv:1904.09751); 1 keeps all."""

    min_p: float = 0.0
    """Draw from tokens at least this fraction as likely as the likeliest (Nguyen et al., 2024,
    arXiv:2407.01082); 0 keeps all."""

    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and of the answer so far less likely (Keskar et al., 2019,
    arXiv:1909.05858); 1 does nothing."""

    stop: list[str] = field(default_factory=list)
    """Strings that end the answer; they are cut from it."""

    seed: int = 0
    """Another seed draws other tokens; the same seed draws the same ones."""

    def __post_init__(self) -> None:
        """Reject settings that cannot be followed; every comparison is false for NaN."""
        if not self.max_new_tokens >= 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: give 1 or more")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: give 0 (greedy) or more")
        if self.top_k is not None and not self.top_k >= 1:
            raise ValueError(f"top_k={self.top_k}: give 1 or more, or null to keep all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: give a probability, 0 < top_p <= 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p}: give a fraction, 0 <= min_p <= 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty}: give more than 0; 1 does nothing"
            )
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(f"stop={self.stop!r}: give a list of strings, none of them empty")


def next_tokens(
    logits_BV: Tensor,
    sampling: Sampling,
    *,
    generators: Sequence[Generator],
    forbidden: Tensor | None = None,
    seen_BV: Tensor | None = None,
) -> Tensor:
    """Choose the next token of every row.

    Args:
        logits_BV: unnormalized log-probabilities, float32
        sampling: the settings
        generators: one per row, on the CPU, so that a row's tokens depend on no other row and
            on no device
        forbidden: int64 ids that are never chosen
        seen_BV: bool, the tokens that `repetition_penalty` applies to

    Returns:
        Token ids, (B,), int64.
    """
    if forbidden is not None:
        logits_BV = logits_BV.index_fill(-1, forbidden, -torch.inf)
    if seen_BV is not None:
        logits_BV = penalize_repetition(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p < 1:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    if sampling.min_p > 0:
        logits_BV = keep_min_p(logits_BV, sampling.min_p)
    uniform = [torch.rand((), generator=g, dtype=torch.float64).item() for g in generators]
    return draw(logits_BV, uniform)


def penalize_repetition(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Divide the positive logits of seen tokens by `penalty` and multiply the negative ones."""
    penalized_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, penalized_BV, logits_BV)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Set to -inf what is below the k-th largest logit of its row; its equals all stay."""
    kth_B1 = logits_BV.topk(min(k, logits_BV.size(-1)), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Set to -inf each token whose likelier tokens already have probability p together."""
    # stable: of equals, the smaller id counts as likelier, whatever the batch's size
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = sorted_BV.softmax(dim=-1)
    likelier_BV = probs_BV.cumsum(dim=-1) - probs_BV  # 0 for the first: one token always stays
    return logits_BV.scatter(-1, order_BV, sorted_BV.masked_fill(likelier_BV >= p, -torch.inf))


def keep_min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Set to -inf each token less than p times as likely as the row's likeliest."""
    lowest_B1 = logits_BV.amax(dim=-1, keepdim=True) + math.log(p)
    return logits_BV.masked_fill(logits_BV < lowest_B1, -torch.inf)


def draw(logits_BV: Tensor, uniform: Sequence[float]) -> Tensor:
    """Draw a token per row by inverting its cumulative distribution.

    One uniform number in [0, 1) per row decides. The borders between tokens move only as far as
    the probabilities do, so logits that differ in their last bits (another batch size, another
    device) choose another token with a probability of about 1e-6.
    """
    # float64: float32 sums over a large vocabulary are off by more than a rare token's probability
    wide_BV = logits_BV.cpu() if logits_BV.device.type == "mps" else logits_BV  # MPS has no float64
    cumulative_BV = wide_BV.double().softmax(dim=-1).cumsum(dim=-1)
    uniform_B1 = torch.tensor(uniform, dtype=torch.float64, device=wide_BV.device)[:, None]
    ids_B = (cumulative_BV <= uniform_B1 * cumulative_BV[:, -1:]).sum(dim=-1)
    return ids_B.to(logits_BV.device)


def row_generator(seed: int, prompt: Sequence[int], repetition: int) -> Generator:
    """Randomness of one row: a function of the seed, its prompt and which copy of it this is."""
    digest = hashlib.sha256(f"{seed}/{repetition}/{list(prompt)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
