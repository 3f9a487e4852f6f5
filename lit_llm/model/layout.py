"""Who may see whom, decided once per batch and then read by every layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_llm.model import varlen

CAUSAL_IS_WRONG_ON = ("mps",)
"""Devices where SDPA's `is_causal` lets a query see up to three later tokens: Apple's in 16 bits,
up to PyTorch 2.12 (https://github.com/pytorch/pytorch/issues/195910). A mask is read rightly.
"""


@dataclass(frozen=True)
class Layout:
    """Positions for RoPE and the visibility of keys for attention."""

    positions_BT: Tensor
    """int64; each token's place in its own document, counted from 0"""

    mask_B1TS: Tensor | None
    """bool, True where query t may see key s; None where `is_causal` says it all"""

    is_causal: bool = False
    """With no mask: each token sees itself and the tokens before it (else all of the row)."""

    documents: varlen.Documents | None = None
    """What the mask says once more, for a kernel that needs none; None where there is no such"""

    @classmethod
    def plain(cls, tokens_BT: Tensor) -> Layout:
        """One document per row, seen causally."""
        positions_T = torch.arange(tokens_BT.size(1), device=tokens_BT.device)
        return cls.prefill(positions_T.expand_as(tokens_BT), tokens_BT.size(1))

    @classmethod
    def packed(
        cls,
        documents_BT: Tensor,
        positions_BT: Tensor,
        *,
        bidirectional: bool = False,
        most_documents: int | None = None,
    ) -> Layout:
        """Several documents in a row, none of which sees another.

        Args:
            documents_BT: int64; equal numbers mark one document of the row, -1 marks padding
            positions_BT: int64; place of each token in its document
            bidirectional: tokens also see what comes after them, as in masked language models
            most_documents: what the whole batch has at most, if that is known without asking the
                device; they lie in one piece each, and then a GPU need not read the mask
        """
        if documents_BT.device.type == "cpu" and bool((documents_BT == documents_BT[:, :1]).all()):
            # SDPA is faster without a mask; elsewhere this look would wait for the device.
            return cls(positions_BT, None, is_causal=not bidirectional)
        mask_BTS = documents_BT[:, :, None] == documents_BT[:, None, :]
        if not bidirectional:
            mask_BTS = mask_BTS.tril()
        documents = None
        kernel = varlen.kernel(documents_BT.device) if most_documents is not None else None
        if kernel is not None and most_documents is not None:
            borders_N = varlen.borders(documents_BT, varlen.room_for(most_documents))
            documents = varlen.Documents(borders_N, not bidirectional, kernel)
        # The mask is made all the same: float32, dropout and other attentions read it.
        return cls(positions_BT, mask_BTS[:, None], documents=documents)

    def within(self, window: int, slots: int | None = None) -> Layout:
        """The same, but a token sees no other that is `window` or more positions away.

        Args:
            window: tokens that one sees, itself included (Beltagy et al., 2020, arXiv:2004.05150)
            slots: of the cache, whose slot s holds the token of position s; None without a cache
        """
        positions_BT, mask_B1TS = self.positions_BT, self.mask_B1TS
        slots_seen = positions_BT.size(1) if mask_B1TS is None else mask_B1TS.size(-1)
        if slots_seen <= window:
            return self  # no two tokens that see each other are so far apart
        if slots is not None:
            keys_BS = torch.arange(slots, device=positions_BT.device).expand(len(positions_BT), -1)
        else:
            keys_BS = positions_BT
        distance_BTS = positions_BT[:, :, None] - keys_BS[:, None, :]
        if mask_B1TS is None:
            mask_B1TS = torch.ones_like(distance_BTS, dtype=torch.bool)[:, None]
            if self.is_causal:
                mask_B1TS = (distance_BTS >= 0)[:, None]
        return Layout(positions_BT, mask_B1TS & (distance_BTS.abs() < window)[:, None])

    @classmethod
    def prefill(cls, positions_BT: Tensor, slots: int) -> Layout:
        """The first tokens of a cache, from slot 0 on: nothing came before them.

        Each token sees the slots up to its own, which needs no mask: SDPA counts queries and keys
        from the same end, the first, also where there are more keys. A mask says the same where
        it does that wrongly. Without a cache there are as many slots as tokens.

        Args:
            positions_BT: 0, 1, 2... in each row
            slots: of the cache
        """
        if positions_BT.device.type in CAUSAL_IS_WRONG_ON:
            return cls.cached(positions_BT, slots)
        return cls(positions_BT, None, is_causal=True)

    @classmethod
    def cached(cls, positions_BT: Tensor, slots: int) -> Layout:
        """New tokens at `positions_BT` of a cache whose slot s holds the token of position s.

        What lies in later slots (padding, or an earlier request) is never visible: a token at
        position t sees slots 0 to t only.
        """
        slot_S = torch.arange(slots, device=positions_BT.device)
        return cls(positions_BT, (slot_S <= positions_BT[..., None])[:, None])
