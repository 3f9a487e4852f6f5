"""python measure.py JSON: the memory that training took, in bytes, by the operating system's word.

Run in a process of its own: what the largest resident set was beyond that of before the network
was built. Nothing of `lit_llm.planning` is imported here.
"""

import ctypes
import gc
import json
import re
import sys
import warnings
from functools import partial
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from lit_llm.data.batch import Batch
from lit_llm.model.config import GPTConfig
from lit_llm.objective import CausalLM
from lit_llm.optim import Muon
from lit_llm.training.module import LitLLM

OPTIMIZERS = {"AdamW": partial(torch.optim.AdamW, fused=True), "Muon": Muon}


class Batches(L.LightningDataModule):
    """Stands in for TextData: rows of two documents each."""

    dp_size, dp_rank = 1, 0
    tokenizer = None

    def __init__(self, vocab_size: int, rows: int, seq_len: int, accumulate: int) -> None:
        super().__init__()
        self.accumulate = accumulate
        self.nominal_tokens_per_step = accumulate * rows * seq_len
        self.token_bytes_V = torch.ones(vocab_size, dtype=torch.int32)
        tokens_BT = torch.randint(vocab_size, (rows, seq_len))
        position_T = torch.arange(seq_len)
        half = seq_len // 2
        self.batch = Batch(
            tokens_BT,
            tokens_BT.roll(-1, 1),
            (position_T >= half).long().expand(rows, seq_len).clone(),
            (position_T % half).expand(rows, seq_len).clone(),
        )

    def train_dataloader(self) -> DataLoader:
        batches = [Batch(*(field.clone() for field in self.batch)) for _ in range(4)]
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def train(
    gpt: dict, rows: int, seq_len: int, precision: str, accumulate: int, optimizer: str,
    chunk_tokens: int, activation_checkpointing: int,
) -> None:  # fmt: skip
    config = GPTConfig(max_seq_len=seq_len, **gpt)
    module = LitLLM(
        config,
        objective=CausalLM(chunk_tokens),
        optimizer=OPTIMIZERS[optimizer],
        activation_checkpointing=activation_checkpointing,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        precision=precision,
        max_steps=2,
        max_epochs=-1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=Batches(config.vocab_size, rows, seq_len, accumulate))
    assert trainer.global_step == 2


def resident(which: str) -> int:
    """VmRSS, what is resident now, or VmHWM, the most that ever was; bytes."""
    match = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def main() -> None:
    warnings.simplefilter("ignore")
    settings = json.loads(sys.argv[1])
    small = {"n_layer": 1, "d_model": 32, "n_head": 2, "vocab_size": 64}
    train(**{**settings, "gpt": small, "rows": 2, "seq_len": 16})  # loads what is loaded late
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    train(**settings)
    print(json.dumps(resident("VmHWM") - before))


if __name__ == "__main__":
    main()
