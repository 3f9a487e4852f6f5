"""A run small enough for a test: the attributes and the logging of LitLLM, nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.data.batch import Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.training.gradients import normalize_and_clip
from lit_llm.training.guards import Guards
from lit_llm.training.skipping import skip_where

# Sizes all differ. 26 letters, then bos and eos.
VOCAB, BOS, EOS, ROWS, LENGTH, VAL_BATCHES = 28, 26, 27, 3, 17, 2


class Letters:
    """A tokenizer of 26 letters."""

    special = {"bos": BOS, "eos": EOS}

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") for letter in text]

    def document(self, ids: list[int]) -> list[int]:
        return [BOS, *ids]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + id) for id in ids if id < 26)


class Endless(IterableDataset):
    """Batch number p of a run is a function of p alone; each row is one document."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self):
        position = self.start
        while True:
            yield batch(position)
            position += 1


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(26, (ROWS, LENGTH + 1), generator=generator)
    tokens[:, 0] = BOS
    positions = torch.arange(LENGTH).expand(ROWS, LENGTH)
    return Batch(tokens[:, :-1], tokens[:, 1:], torch.zeros_like(positions), positions)


class Data(L.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = Letters()
        self.card = {"documents": 1234567, "sources": {"<village>": 7}, "longest": 99.25}
        self.fingerprint = "0123abcd"
        self.seq_len = LENGTH
        self.global_batch_size = ROWS
        self.nominal_tokens_per_step = ROWS * LENGTH  # 51

    def samples_of_step(self, step: int) -> list[tuple[int, str, int]]:
        return [(step, "letters", 100 + step)]

    def train_dataloader(self):
        accumulate = self.trainer.accumulate_grad_batches
        return DataLoader(Endless(self.trainer.global_step * accumulate), batch_size=None)

    def val_dataloader(self):
        return DataLoader([batch(-1 - i) for i in range(VAL_BATCHES)], batch_size=None)

    def predict_dataloader(self):
        return self.val_dataloader()


class Objective:
    bidirectional = False


class TinyLM(L.LightningModule):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.gpt = GPT(
            GPTConfig(
                vocab_size=VOCAB, max_seq_len=32, n_layer=1, d_model=8, n_head=2, dropout=dropout
            )
        )
        self.objective = Objective()
        self.poison_at: int | None = None
        self.poison_until: int | None = None
        self.guards = Guards()

    def loss(self, batch: Batch) -> Tensor:
        logits = self.gpt(batch.tokens_BT)
        return F.cross_entropy(logits.flatten(0, 1), batch.labels_BT.flatten())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.train_loss = self.loss(batch)
        first, step = self.poison_at, self.trainer.global_step + 1
        if first is not None and first <= step <= (self.poison_until or first):
            self.train_loss = self.train_loss * float("nan")
        return self.train_loss

    def configure_gradient_clipping(self, optimizer, *_, **__) -> None:
        one = torch.ones(())
        norm = normalize_and_clip(optimizer, factor=one, clip_val=None, algorithm="norm")
        step = self.trainer.global_step + 1
        skip_where(optimizer, self.guards.judge(step, self.train_loss.detach(), norm))

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        step = self.trainer.global_step
        last = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if last and step % self.trainer.log_every_n_steps == 0:
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict({"train/loss": self.train_loss, "lr": lr, "step": float(step)})
        self.guards.hear(wait=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_loss = self.loss(batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({"val/loss": self.val_loss, "step": float(self.trainer.global_step)})

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.gpt(batch.tokens_BT)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


@pytest.fixture
def tiny_lm() -> Callable[..., TinyLM]:
    return TinyLM


@pytest.fixture
def tiny_data() -> Callable[[], Data]:
    return Data


@pytest.fixture
def fit(tmp_path: Path):
    """Train in tmp_path / "run"; give back (trainer, model)."""

    def fit(
        callbacks=(),
        *,
        logger=False,
        max_steps=6,
        model: TinyLM | None = None,
        ckpt_path: str | None = None,
        **options,
    ):
        own_bar = any(isinstance(c, L.pytorch.callbacks.ProgressBar) for c in callbacks)
        own_saves = any(isinstance(c, L.pytorch.callbacks.ModelCheckpoint) for c in callbacks)
        defaults = {
            "accelerator": "cpu",
            "max_steps": max_steps,
            "max_epochs": -1,
            "default_root_dir": tmp_path / "run",
            "log_every_n_steps": 2,
            "val_check_interval": 3,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": own_bar,
            "enable_checkpointing": own_saves,
            "enable_model_summary": False,
            "logger": logger,
            "plugins": [FolderCheckpointIO()],
            "callbacks": list(callbacks),
        }
        model = model or TinyLM()
        trainer = L.Trainer(**{**defaults, **options})
        trainer.fit(model, datamodule=Data(), ckpt_path=ckpt_path)
        return trainer, model

    return fit
