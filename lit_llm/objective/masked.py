"""Masked language modelling (Devlin et al., 2018, arXiv:1810.04805)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout
from lit_llm.objective.base import LossSums, Objective, Vocabulary, summed_cross_entropy
from lit_llm.objective.cross_entropy import cross_entropy_sum

ROWS_AT_ONCE = 64  # masked copies that `evaluate` runs together


class MaskedLM(Objective):
    """Hidden tokens are predicted from both sides.

    Of the ordinary tokens a share is chosen; of the chosen, most become the mask token, some
    another token drawn evenly from the vocabulary, the rest stay as they are, so that the network
    cannot rely on seeing a mask wherever it must predict.

    Args:
        share: tokens to predict, BERT's 15%
        masked: of these, replaced by the mask token
        random: of these, replaced by another ordinary token
        chunk_tokens: tokens whose logits are held at a time
    """

    bidirectional = True
    perplexity_name = "pseudo_perplexity"

    def __init__(
        self,
        share: float = 0.15,
        masked: float = 0.8,
        random: float = 0.1,
        chunk_tokens: int = 8192,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share={share} is no share of the tokens: give 0 < share <= 1")
        if masked < 0 or random < 0 or masked + random > 1:
            raise ValueError(
                f"masked={masked} and random={random} are shares of the chosen tokens: "
                "give two that add up to at most 1"
            )
        self.share = share
        self.masked = masked
        self.random = random
        self.chunk_tokens = chunk_tokens
        self.mask_id: int | None = None
        self.ordinary_V: Tensor | None = None
        self.ordinary_ids: Tensor | None = None

    def bind(self, vocabulary: Vocabulary) -> None:
        if "mask" not in vocabulary.special:
            raise ValueError(
                "masked language modelling needs a mask token, which this tokenizer lacks: "
                "use lit_llm.tokenizer.SentencePiece, or map one of its control tokens to 'mask'"
            )
        self.mask_id = vocabulary.special["mask"]
        ordinary_V = torch.ones(vocabulary.vocab_size, dtype=torch.bool)
        ordinary_V[list(vocabulary.special.values())] = False
        self.ordinary_V = ordinary_V
        self.ordinary_ids = ordinary_V.nonzero().squeeze(-1)

    def corrupt(self, batch: Batch, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw inputs_BT and targets_BT, int64; targets are IGNORE where nothing was chosen."""
        assert self.mask_id is not None, "bind() comes first"
        assert self.ordinary_V is not None
        assert self.ordinary_ids is not None
        tokens_BT = batch.tokens_BT
        self.ordinary_V = self.ordinary_V.to(tokens_BT.device)
        ids = self.ordinary_ids = self.ordinary_ids.to(tokens_BT.device)
        ordinary_BT = self.ordinary_V[tokens_BT] & (batch.documents_BT >= 0)

        def draw() -> Tensor:
            return torch.rand(tokens_BT.shape, generator=generator, device=tokens_BT.device)

        chosen_BT = (draw() < self.share) & ordinary_BT
        fate_BT = draw()
        others_BT = ids[(draw() * len(ids)).long().clamp(max=len(ids) - 1)]
        inputs_BT = tokens_BT.masked_fill(chosen_BT & (fate_BT < self.masked), self.mask_id)
        swap_BT = chosen_BT & (fate_BT >= self.masked) & (fate_BT < self.masked + self.random)
        inputs_BT = torch.where(swap_BT, others_BT, inputs_BT)
        return inputs_BT, tokens_BT.masked_fill(~chosen_BT, IGNORE)

    def __call__(self, gpt: GPT, batch: Batch, generator: Generator | None = None) -> LossSums:
        inputs_BT, targets_BT = self.corrupt(batch, generator)
        layout = self.layout(batch)
        loss = gpt(
            inputs_BT,
            layout,
            head=lambda hidden_BTD, _: summed_cross_entropy(
                hidden_BTD, gpt, targets_BT, self.chunk_tokens
            ),
        )
        return LossSums(loss, (targets_BT != IGNORE).sum(), targets_BT)

    def evaluate(self, gpt: GPT, batch: Batch, generator: Generator | None = None) -> LossSums:
        """Mask one token at a time and predict it from all others, for every ordinary token.

        The exponential of the mean loss is the pseudo-perplexity of Salazar et al. (2020,
        arXiv:1910.14659). Costs as many forward passes of a row as it has tokens.
        """
        assert self.ordinary_V is not None, "bind() comes first"
        ordinary_BT = self.ordinary_V.to(batch.tokens_BT.device)[batch.tokens_BT]
        rows_N, columns_N = (ordinary_BT & (batch.documents_BT >= 0)).nonzero(as_tuple=True)
        losses = [
            self._loss_of_single_masks(gpt, batch, rows, columns)
            for rows, columns in zip(
                rows_N.split(ROWS_AT_ONCE), columns_N.split(ROWS_AT_ONCE), strict=True
            )
        ]
        targets_BT = torch.full_like(batch.tokens_BT, IGNORE)
        targets_BT[rows_N, columns_N] = batch.tokens_BT[rows_N, columns_N]
        loss = torch.stack(losses).sum() if losses else torch.zeros((), device=gpt.device)
        return LossSums(loss, torch.tensor(len(rows_N), device=gpt.device), targets_BT)

    def _loss_of_single_masks(
        self, gpt: GPT, batch: Batch, rows_N: Tensor, columns_N: Tensor
    ) -> Tensor:
        """Copy n of a row has its mask at columns_N[n]; only the logits there are computed."""
        assert self.mask_id is not None
        copies_N = torch.arange(len(rows_N), device=rows_N.device)
        inputs_NT = batch.tokens_BT[rows_N]
        targets_N = inputs_NT[copies_N, columns_N]
        inputs_NT[copies_N, columns_N] = self.mask_id
        layout = Layout.packed(
            batch.documents_BT[rows_N], batch.positions_BT[rows_N], bidirectional=True
        )
        return gpt(
            inputs_NT,
            layout,
            head=lambda hidden_NTD, _: cross_entropy_sum(
                gpt.padded_logits(hidden_NTD[copies_N, columns_N]),
                targets_N,
                gpt.config.vocab_size,
            ),
        )

    def has_targets(self, batch: Batch) -> bool:
        return bool((batch.documents_BT >= 0).any())
