"""The data as the Trainer takes it: rows of tokens to learn from."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lit_llm.data.batch import Row
from lit_llm.data.corpus import Corpus
from lit_llm.data.loader import (
    AllRows,
    EndlessSampler,
    OnceSampler,
    OrderedRows,
    Rows,
    batch_loader,
)
from lit_llm.data.order import Order
from lit_llm.data.packing import FirstFitRows
from lit_llm.data.parts import Part
from lit_llm.data.prepare import Prepared
from lit_llm.data.rows import open_rows
from lit_llm.data.settings import TooLong
from lit_llm.data.shards import Shards
from lit_llm.data.source import Source
from lit_llm.tokenizer import Tokenizer
from lit_llm.tokenizer.base import class_path


class TextData(L.LightningDataModule):
    """Rows of tokens from one or several corpora, for training and validation.

    Text is packed without padding, conversations are never split: see docs/packing.md. Which
    samples a step holds is decided by seed and step alone: see docs/order.md.

    Args:
        corpus: where the text comes from; several: a name for each, with its corpus and weight
        tokenizer: an existing one, or a recipe that is trained on the corpora
        seq_len: tokens of a row, and the model's context
        global_batch_size: rows of an optimizer step, over all devices
        micro_batch_size: rows that one device takes at a time; null: all of its share. The rest
            is gradient accumulation.
        val_fraction: share of each corpus that is kept for validation; 0: none
        val_split: keep whole `documents`, chosen by hash, or the `tails` of all of them
        split_seed: another one keeps other documents
        deduplicate: leave out documents that equal an earlier one
        tokenizer_bytes: text that a tokenizer is trained on, at most
        on_bad: leave out records that cannot be used (`skip`), or stop at the first (`error`)
        max_bad_share: stop if more of the records than this are bad
        attend_across_documents: let text see the documents before it in its row
        too_long: what to do about conversations longer than seq_len: `drop` or `error`
        num_workers: processes that make batches; 0: the training process itself
        prepare_workers: processes that prepare; null: one per CPU core
        cache_dir: where prepared tokens are kept
        order_seed: another one gives another order to a run that is otherwise the same
        verify: compare the prepared tokens with their SHA-256 before they are used
        tokenizer_from: a checkpoint whose tokenizer is used, as when fine-tuning
    """

    def __init__(
        self,
        corpus: Corpus | dict[str, Part],
        tokenizer: Tokenizer | None = None,
        seq_len: int = 256,
        global_batch_size: int = 32,
        micro_batch_size: int | None = None,
        val_fraction: float = 0.1,
        val_split: Literal["documents", "tails"] = "documents",
        split_seed: int = 0,
        deduplicate: bool = True,
        tokenizer_bytes: int = 20_000_000,
        on_bad: Literal["skip", "error"] = "skip",
        max_bad_share: float = 0.05,
        attend_across_documents: bool = False,
        too_long: TooLong = "drop",
        num_workers: int = 0,
        prepare_workers: int | None = None,
        cache_dir: str = ".cache/lit_llm",
        order_seed: int = 0,
        verify: bool = True,
        tokenizer_from: str | None = None,
    ) -> None:
        super().__init__()
        sizes = {"seq_len": seq_len, "global_batch_size": global_batch_size}
        for name, size in {**sizes, "micro_batch_size": micro_batch_size}.items():
            if size is not None and size < 1:
                raise ValueError(f"data.{name}={size} must be at least 1")
        self._source = Source(
            corpus,
            tokenizer,
            val_fraction=val_fraction,
            val_split=val_split,
            split_seed=split_seed,
            deduplicate=deduplicate,
            tokenizer_bytes=tokenizer_bytes,
            on_bad=on_bad,
            max_bad_share=max_bad_share,
            prepare_workers=prepare_workers,
            cache_dir=cache_dir,
            verify=verify,
            tokenizer_from=tokenizer_from,
        )
        self.parts = self._source.parts
        self.seq_len = seq_len
        self.global_batch_size = global_batch_size
        self.micro_batch_size = micro_batch_size
        self.attend_across_documents = attend_across_documents
        self.too_long: TooLong = too_long
        self.num_workers = num_workers
        self.order_seed = order_seed
        self.seed = 0
        """The run's seed, set by whoever knows it before training begins."""
        self._fault: ValueError | None = None
        self._train: list[Rows] = []
        self._val: list[Rows] = []

    # -- preparation -----------------------------------------------------------------------------

    @property
    def prepared(self) -> dict[str, Prepared]:
        """The prepared corpora by name; made when first asked for, by one process of several."""
        return self._source.prepared(progress=self._speaks)

    def prepare_data(self) -> None:
        """Train the tokenizer and write the shards, unless the cache has them; then verify them.

        Before a fit, validate or test Lightning calls it in one process of each node, while the
        others wait: on a node no file is read twice. What all of them read at once and in
        milliseconds, the tokenizer and the card, is verified whenever it is opened.

        Raises:
            ValueError: a file is not what was written; names it. With several processes `setup`
                raises it, in all of them: one that does not know would wait for this one.
        """
        self._source.prepared(progress=self._speaks)
        try:
            line = self._source.verify()
        except ValueError as error:
            if not self._has_peers:
                raise
            self._fault = error
            return
        if line:
            rank_zero_info(line)

    @property
    def tokenizer(self) -> Tokenizer:
        """The trained tokenizer."""
        return next(iter(self.prepared.values())).tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.vocab_size

    @property
    def token_bytes_V(self) -> Tensor:
        """UTF-8 bytes that each id stands for, int32: turns nats per token into bits per byte."""
        tokenizer = self.tokenizer
        sizes = [len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
        return torch.tensor(sizes, dtype=torch.int32)

    @property
    def card(self) -> dict[str, Any]:
        """The data card of each corpus by name."""
        return {name: prepared.card for name, prepared in self.prepared.items()}

    @property
    def is_chat(self) -> bool:
        """Whether conversations are learned, so that prompts belong into a chat template."""
        return any(Shards(prepared.train).has_mask for prepared in self.prepared.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all prepared data and its weights: another byte of it, another value."""
        parts = [
            [name, self.parts[name].weight, prepared.fingerprint]
            for name, prepared in self.prepared.items()
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a checkpoint remembers of its data, as plain values."""
        return {
            "class_path": class_path(type(self)),
            "seq_len": self.seq_len,
            "global_batch_size": self.global_batch_size,
            "attend_across_documents": self.attend_across_documents,
            "tokenizer": self.tokenizer.fingerprint,
            "fingerprint": self.fingerprint,
            "parts": {
                name: {
                    "corpus": class_path(type(part.corpus)),
                    "weight": part.weight,
                    "prepared": self.prepared[name].folder.name,
                }
                for name, part in self.parts.items()
            },
        }

    # -- the size of a step ------------------------------------------------------------------------

    @property
    def dp_size(self) -> int:
        """Ranks that see different data; 1 without a Trainer."""
        return int(self._sampler_kwargs().get("num_replicas", 1))

    @property
    def _has_peers(self) -> bool:
        return getattr(self.trainer, "world_size", 1) > 1

    @property
    def _speaks(self) -> bool:
        return getattr(rank_zero_only, "rank", 0) == 0

    @property
    def dp_rank(self) -> int:
        """Which of them this process belongs to; 0 without a Trainer."""
        return int(self._sampler_kwargs().get("rank", 0))

    @property
    def accumulate(self) -> int:
        """Micro-batches of an optimizer step.

        Raises:
            ValueError: the global batch does not split into equal micro-batches.
        """
        micro = self.micro_batch_size or max(1, self.global_batch_size // self.dp_size)
        at_once = micro * self.dp_size
        steps, rest = divmod(self.global_batch_size, at_once)
        if rest:
            raise ValueError(
                f"data.global_batch_size={self.global_batch_size} is no multiple of the {at_once} "
                f"rows that {self.dp_size} devices take at a time,\n{micro} each: change it, or "
                "data.micro_batch_size, or the number of devices"
            )
        return steps

    @property
    def nominal_tokens_per_step(self) -> int:
        """Tokens of an optimizer step, padding and masked prompts included."""
        return self.global_batch_size * self.seq_len

    def _sampler_kwargs(self) -> dict[str, Any]:
        # Strategies of one device have none. Tensor parallelism counts a group as one rank here.
        return getattr(getattr(self.trainer, "strategy", None), "distributed_sampler_kwargs", {})

    # -- batches -----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Open the prepared corpora.

        Raises:
            ValueError: there is no row for training, or none for validation where it is asked for;
                or `prepare_data` has found damage, in this process or in another.
        """
        if self._has_peers:
            good = self.trainer.strategy.reduce_boolean_decision(self._fault is None)  # type: ignore[union-attr]
            if not good:
                raise self._fault or ValueError("another process found damaged data: it says where")
        if stage == "fit":
            self._train = self._rows(validation=False)
        if self._source.preparation.val_fraction or stage != "fit":
            self._val = self._rows(validation=True)

    def train_dataloader(self) -> DataLoader[Row]:
        """Batches without end, from the step on that the Trainer has reached."""
        sampler = EndlessSampler(
            self.global_batch_size,
            self.global_batch_size // (self.accumulate * self.dp_size),
            rank=self.dp_rank,
            ranks=self.dp_size,
            first_step=self._first_step,
        )
        return self._loader(OrderedRows(self._train, self._order()), sampler)

    def val_dataloader(self) -> DataLoader[Row] | list[Any]:
        """Every row of validation once, in order; no loader with val_fraction=0."""
        if not self._val:
            return []
        rows = AllRows(self._val)
        batch_size = self.global_batch_size // (self.accumulate * self.dp_size)
        sampler = OnceSampler(len(rows), batch_size, rank=self.dp_rank, ranks=self.dp_size)
        return self._loader(rows, sampler)

    def test_dataloader(self) -> DataLoader[Row] | list[Any]:
        """The same as for validation."""
        return self.val_dataloader()

    def samples_of_step(self, step: int) -> list[tuple[int, str, int]]:
        """Which samples an optimizer step is made of, over all devices.

        Args:
            step: counted from 0

        Returns:
            Position in the run, name of the corpus, and row in it, of each.
        """
        if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
            step %= max(1, int(self.trainer.num_training_batches) // self.accumulate)
        order, names = self._order(), list(self.parts)
        first = step * self.global_batch_size
        places = ((p, *order[p]) for p in range(first, first + self.global_batch_size))
        return [(position, names[component], row) for position, component, row in places]

    def text_of(self, corpus: str, row: int) -> str:
        """Read a row of the training data, to look at a sample of `samples_of_step`."""
        rows = self._train[list(self.parts).index(corpus)]
        return self.tokenizer.decode(rows[row].tokens_T.tolist())

    def _order(self) -> Order:
        weights = [part.weight for part in self.parts.values()] if len(self.parts) > 1 else None
        return Order([len(rows) for rows in self._train], weights, self.seed + self.order_seed)

    def _first_step(self) -> int:
        if self.trainer is None or self.trainer.overfit_batches:  # type: ignore[attr-defined]
            return 0  # to overfit is to see the same few batches for ever
        return self.trainer.global_step

    def _loader(
        self, rows: OrderedRows | AllRows, sampler: EndlessSampler | OnceSampler
    ) -> DataLoader[Row]:
        device = self.trainer.strategy.root_device.type if self.trainer else "cpu"
        return batch_loader(
            rows, sampler, num_workers=self.num_workers, pin_memory=device == "cuda"
        )

    def _rows(self, *, validation: bool) -> list[Rows]:
        found = []
        for name, prepared in self.prepared.items():
            rows = open_rows(
                prepared,
                self.seq_len,
                validation=validation,
                attend_across_documents=self.attend_across_documents,
                too_long=self.too_long,
            )
            if isinstance(rows, FirstFitRows) and rows.n_too_long:
                rank_zero_warn(
                    f"{name}: {rows.n_too_long} of {rows.shards.n_documents} conversations are "
                    f"longer than seq_len={self.seq_len} and left out (the longest has "
                    f"{rows.longest} tokens): raise data.seq_len to keep them"
                )
            found.append(rows)
        return found
