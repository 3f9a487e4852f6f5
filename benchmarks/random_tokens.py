"""Rows of random token ids: for measuring speed and memory, where nothing is to be learned.

    python cli.py fit -c configs/model/gpt-124m.yaml -c configs/optim/adamw.yaml \
        -c configs/trainer/gpu.yaml -c benchmarks/random-tokens.yaml --trainer.fast_dev_run 50

No corpus is prepared and nothing is read from a disk. A network does the same work on these ids as
on text; only its loss says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_llm.data.batch import Row
from lit_llm.data.loader import Rows
from lit_llm.data.module import TextData
from lit_llm.data.parts import Part
from lit_llm.tokenizer import Tokenizer

N_ROWS = 1_000_000  # more than any measurement reads


class RandomTokens(TextData):
    """Stands in for a prepared corpus.

    Args:
        vocabulary: token ids that there are; GPT-2's by default
        seq_len: tokens of a row
        global_batch_size: rows of an optimizer step, over all devices
        micro_batch_size: rows that one device takes at a time; null: all of its share
        documents: that share a row and do not see each other
        num_workers: processes that make batches; 0: the training process itself
        tokenizer_from: not used; the command line sets it for every kind of data
    """

    def __init__(
        self,
        vocabulary: int = 50_257,
        seq_len: int = 1024,
        global_batch_size: int = 32,
        micro_batch_size: int | None = None,
        documents: int = 4,
        num_workers: int = 0,
        tokenizer_from: str | None = None,
    ) -> None:
        self._numbers = Numbers(vocabulary)
        super().__init__(
            {"random": Part(None)},  # type: ignore[arg-type]
            self._numbers,
            seq_len=seq_len,
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            val_fraction=0,
            num_workers=num_workers,
        )
        self.parts = {}
        self.documents = documents

    @property
    def prepared(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def prepare_data(self) -> None:
        """Nothing has to be prepared."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Ids that stand for no text."""
        return self._numbers

    @property
    def token_bytes_V(self) -> Tensor:
        """Four bytes for each id, about what English has."""
        return torch.full((self._numbers.vocab_size,), 4, dtype=torch.int32)

    def _rows(self, *, validation: bool) -> list[Rows]:
        return [RandomRows(self._numbers.vocab_size, self.seq_len, self.documents)]


class RandomRows:
    """Row i is a function of i alone."""

    def __init__(self, vocabulary: int, seq_len: int, documents: int) -> None:
        self.vocabulary = vocabulary
        self.seq_len = seq_len
        place_T = torch.arange(seq_len)
        length = -(-seq_len // documents)
        self.documents_T, self.positions_T = place_T // length, place_T % length

    def __len__(self) -> int:
        return N_ROWS

    def __getitem__(self, i: int, /) -> Row:
        ids = np.random.default_rng(i).integers(self.vocabulary, size=self.seq_len + 1)
        ids_T = torch.from_numpy(ids)
        return Row(ids_T[:-1], ids_T[1:], self.documents_T, self.positions_T)


class Numbers(Tokenizer):
    """A vocabulary of a given size without any text."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def vocab_size(self) -> int:
        return self._size

    @property
    def special(self) -> dict[str, int]:
        return {}

    @property
    def fingerprint(self) -> str:
        return f"{self._size:064x}"

    def encode(self, text: str) -> list[int]:
        raise ValueError("random tokens stand for no text: train on a corpus, see configs/data/")

    def token_bytes(self, id: int) -> bytes:
        return b""

    def save(self, folder: Path) -> None:
        """Write nothing: a checkpoint of random tokens is of no use."""

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        raise ValueError(f"{folder}: a network of random tokens has no tokenizer")
