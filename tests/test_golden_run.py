"""The losses of ten training steps, recorded: a refactoring must not move them.

If a change is meant to move them, say why in the commit message and record them anew:

    pytest tests/test_golden_run.py --update-golden
"""

import json
from pathlib import Path

import lightning as L
import pytest
import torch

from lit_llm.data.corpus import TextFiles
from lit_llm.data.module import TextData
from lit_llm.model.config import GPTConfig
from lit_llm.optim import WarmupCosine
from lit_llm.tokenizer import SentencePiece
from lit_llm.training.module import LitLLM

GOLDEN = Path(__file__).parent / "golden" / "ten_steps_cpu_float32.json"


class Record(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(outputs["loss"]))


def poem() -> str:
    """Forty documents of a small grammar: text that needs no file and never changes."""
    who, does, what = ("The cat", "A dog", "My hen"), ("sees", "likes", "hears"), ("rain", "me")
    lines = [f"{w} {d} {x} {n}." for w in who for d in does for x in what for n in range(7)]
    return "\n\n".join(" ".join(lines[i : i + 5]) for i in range(0, len(lines), 3))


def test_ten_steps_reproduce_the_recorded_losses(tmp_path, update_golden):
    torch.set_num_threads(1)
    (tmp_path / "poem.txt").write_text(poem())
    data = TextData(
        TextFiles(tmp_path / "poem.txt", document="separator"),
        SentencePiece(vocab_size=300),
        seq_len=30,
        global_batch_size=4,
        micro_batch_size=2,
        val_fraction=0,
        prepare_workers=0,
        cache_dir=str(tmp_path / "cache"),
    )
    config = GPTConfig(
        vocab_size=data.vocab_size,
        max_seq_len=30,
        n_layer=2,
        d_model=32,
        n_head=4,
        n_kv_head=2,
        qk_norm=True,
        dropout=0.1,
    )
    record = Record()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=10,
        default_root_dir=tmp_path,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[record],
    )
    trainer.fit(LitLLM(config, schedule=WarmupCosine(warmup_steps=3), seed=7), data)

    assert len(record.losses) == 20  # two micro-batches a step
    if update_golden:
        GOLDEN.write_text(json.dumps(record.losses, indent=2) + "\n")
    assert record.losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)
