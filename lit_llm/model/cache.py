"""Keys and values of the tokens so far, so that each new token costs one position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lit_llm.model.config import GPTConfig


@dataclass
class LayerCache:
    """One layer's keys and values; slot s holds the token at position s of its sequence."""

    k_BKSE: Tensor
    v_BKSE: Tensor

    def begin(self, k_BKTE: Tensor, v_BKTE: Tensor) -> None:
        """Put the keys and values of the first tokens into the slots from 0 on, in every row."""
        self.k_BKSE[:, :, : k_BKTE.size(2)] = k_BKTE
        self.v_BKSE[:, :, : v_BKTE.size(2)] = v_BKTE

    def write(self, k_BKTE: Tensor, v_BKTE: Tensor, positions_BT: Tensor) -> None:
        """Put new keys and values into the slots of their positions, row by row.

        They take the cache's dtype: under autocast they are narrower than the weights.
        """
        # Not scatter_: in bfloat16 it takes 0.34 ms for 16 rows, this takes 0.01.
        rows_B1 = torch.arange(positions_BT.size(0), device=positions_BT.device)[:, None]
        for cache_BKSE, new_BKTE in ((self.k_BKSE, k_BKTE), (self.v_BKSE, v_BKTE)):
            new_BTKE = new_BKTE.transpose(1, 2).type_as(cache_BKSE)
            cache_BKSE.transpose(1, 2)[rows_B1, positions_BT] = new_BTKE


class KVCache:
    """The caches of all layers, allocated once for `batch` sequences of up to `slots` tokens."""

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        slots: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if slots > config.max_seq_len:
            raise ValueError(
                f"a cache of {slots} slots is longer than max_seq_len={config.max_seq_len}: "
                "shorten the prompt or max_new_tokens"
            )
        shape = (batch, config.kv_heads, slots, config.channels_per_head)
        self.slots = slots
        self.layers = [
            LayerCache(
                torch.zeros(shape, device=device, dtype=dtype),
                torch.zeros(shape, device=device, dtype=dtype),
            )
            for _ in range(config.n_layer)
        ]

    def keep(self, rows: Tensor) -> None:
        """Drop all sequences but `rows` (int64 indices), when others have finished."""
        for layer in self.layers:
            layer.k_BKSE, layer.v_BKSE = layer.k_BKSE[rows], layer.v_BKSE[rows]
