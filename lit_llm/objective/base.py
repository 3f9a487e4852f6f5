"""What the training code may assume of any objective.

To add one, subclass `Objective` in a file of your own and name it in YAML:

    model:
      objective: my_project.MyObjective
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from lit_llm.data.batch import Batch
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout
from lit_llm.model.varlen import count_documents
from lit_llm.objective.cross_entropy import cross_entropy_sum


class LossSums(NamedTuple):
    """Sums, never means: they add up over micro-batches and devices without a bias."""

    loss: Tensor
    """float32 scalar; summed cross-entropy in nats"""

    tokens: Tensor
    """int64 scalar; predictions that were scored"""

    targets_BT: Tensor
    """int64; the token ids that were to be predicted, IGNORE elsewhere"""


class Vocabulary(Protocol):
    """What an objective may ask of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def special(self) -> Mapping[str, int]: ...


class Objective(ABC):
    """A way to turn a batch into losses."""

    bidirectional: ClassVar[bool] = False
    """Whether tokens see what comes after them; generation from left to right needs False."""

    perplexity_name: ClassVar[str] = "perplexity"
    """What exp of the mean loss of `evaluate` is called."""

    _most_documents: int | None = None

    def expect(self, batch: Batch) -> None:
        """Look at a batch on the CPU, before it goes to the device; the next call scores it."""
        self._most_documents = count_documents(batch.documents_BT)

    def layout(self, batch: Batch) -> Layout:
        """Who sees whom in a batch."""
        expected, self._most_documents = self._most_documents, None
        return Layout.packed(
            batch.documents_BT,
            batch.positions_BT,
            bidirectional=self.bidirectional,
            most_documents=expected,
        )

    def bind(self, vocabulary: Vocabulary) -> None:  # noqa: B027 - most objectives need nothing
        """Learn the ids of control tokens, once, before training."""

    @abstractmethod
    def __call__(self, gpt: GPT, batch: Batch, generator: Generator | None = None) -> LossSums:
        """Score a batch.

        Args:
            gpt: the network
            batch: rows of `lit_llm.data.packing`
            generator: source of randomness; None draws from the global one, which training
                seeds anew at each micro-batch
        """

    def evaluate(self, gpt: GPT, batch: Batch, generator: Generator | None = None) -> LossSums:
        """Score a batch for `test`, where exactness is worth more time than in validation."""
        return self(gpt, batch, generator)

    @abstractmethod
    def has_targets(self, batch: Batch) -> bool:
        """Whether the batch has anything to predict; called before it moves to the device."""


def summed_cross_entropy(
    hidden_BTD: Tensor,
    gpt: GPT,
    targets_BT: Tensor,
    chunk_tokens: int = 8192,
) -> Tensor:
    """Cross-entropy of every target that is not IGNORE, summed, in nats; called inside `forward`.

    Logits are the largest tensor of training: 8192 tokens x 50,304 ids in float32 are 1.6 GB. So
    no more than `chunk_tokens` rows of them exist at a time; their backward pass computes them
    again.
    """

    def chunk_loss(hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        return cross_entropy_sum(gpt.padded_logits(hidden_ND), targets_N, gpt.config.vocab_size)

    hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
    if targets_N.numel() <= chunk_tokens:
        return chunk_loss(hidden_ND, targets_N)
    chunks = zip(hidden_ND.split(chunk_tokens), targets_N.split(chunk_tokens), strict=True)
    losses = [checkpoint(chunk_loss, h, t, use_reentrant=False) for h, t in chunks]
    return torch.stack(losses).sum()
