"""What `benchmarks.no_work` runs: an objective without a network, and a callback that counts."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch import Generator
from torch.optim import AdamW

from benchmarks import no_work
from benchmarks.random_tokens import RandomTokens
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.objective.base import LossSums, Objective
from lit_llm.optim.schedule import Linear
from lit_llm.training.module import LitLLM

SEQ_LEN, VOCABULARY = 8, 64


class NoWork(Objective):
    """The gradient of one small weight, and no network."""

    def __call__(self, gpt: GPT, batch: Batch, generator: Generator | None = None) -> LossSums:
        targets_BT = batch.labels_BT
        return LossSums(gpt.norm.weight.sum(), (targets_BT != IGNORE).sum(), targets_BT)

    def has_targets(self, batch: Batch) -> bool:
        return bool((batch.labels_BT != IGNORE).any())


class Timer(L.Callback):
    """Tells when a step is over."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = not no_work.steps[0].begin()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step and not no_work.steps[0].step():
            trainer.should_stop = True


def network() -> GPTConfig:
    """As small as one can be."""
    return GPTConfig(
        n_layer=1, n_head=1, d_model=8, d_ff=16, vocab_size=VOCABULARY, max_seq_len=SEQ_LEN
    )


def data() -> RandomTokens:
    """One short row a step."""
    found = RandomTokens(vocabulary=VOCABULARY, seq_len=SEQ_LEN, global_batch_size=1)
    found.setup("fit")
    return found


def lit_llm() -> LitLLM:
    """Our module, without a schedule's warm-up."""
    return LitLLM(
        network(),
        NoWork(),
        optimizer=lambda groups: AdamW(groups, lr=1e-9, fused=True),
        schedule=Linear(warmup_steps=0),
    )
