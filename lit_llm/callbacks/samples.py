"""What the model writes while it learns: continuations of the same few prompts, again and again."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_llm.callbacks.continuations import (
    continue_in_lockstep,
    continue_prompts,
    document_beginnings,
    is_spread,
)
from lit_llm.callbacks.csv_log import move_aside
from lit_llm.callbacks.throughput import Throughput
from lit_llm.data.batch import Batch
from lit_llm.generation.sampling import Sampling

SAMPLES_FILE = "samples.jsonl"


class Samples(L.Callback):
    """Continues prompts with the current model and appends the results to `samples.jsonl`.

    A run learns the same with or without it: neither random numbers nor the model's mode are
    touched. Objectives that see both directions are left alone, for such a model cannot
    continue a text. Where every process has the whole model, rank 0 writes alone; where FSDP2
    has spread it, all processes write the same text together and rank 0's is kept. Matrices that
    are split between devices (tensor parallelism) cannot write: the cache of keys and values
    knows whole heads only.

    Args:
        every_n_steps: optimizer steps between two looks; null looks at each validation
        prompts: texts to continue; null takes the beginnings of validation documents, or of
            conversations up to their first answer
        n_prompts: how many of those
        prompt_tokens: length of those, where no answer decides it
        sampling: how to continue; greedy by default, so that a change comes from the model
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        prompts: list[str] | None = None,
        n_prompts: int = 3,
        prompt_tokens: int = 12,
        sampling: Sampling | None = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} is no distance: give 1 or more")
        self.every_n_steps = every_n_steps
        self.prompts = prompts
        self.n_prompts = n_prompts
        self.prompt_tokens = prompt_tokens
        self.sampling = sampling or Sampling(max_new_tokens=48)
        self._enabled = True
        self._prompt_ids: list[list[int]] = []
        self._sampled_step = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse what cannot be done before any time is spent.

        Raises:
            ValueError: samples are asked for under tensor parallelism.
        """
        asked_for = self.every_n_steps is not None or self.prompts is not None
        if stage == "fit" and asked_for and (size := _tensor_parallel_size(trainer)) > 1:
            raise ValueError(
                f"tensor_parallel={size} splits the model's matrices, so it cannot write samples: "
                "remove samples.every_n_steps and samples.prompts"
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sampled_step = trainer.global_step
        reason = _why_silent(trainer, pl_module)
        self._enabled = reason is None
        if not self._enabled:
            rank_zero_info(f"no samples: {reason}")
            return
        if self.prompts is not None:
            tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
            begin = tokenizer.document if "bos" in tokenizer.special else list
            self._prompt_ids = [begin(tokenizer.encode(text)) for text in self.prompts]
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            _begin(Path(trainer.default_root_dir) / SAMPLES_FILE, trainer.global_step)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # All ranks take rank 0's: under sharding they have to compute the same thing together.
        if batch_idx == 0 and self._enabled and self.prompts is None and not self._prompt_ids:
            found = document_beginnings(batch, self.n_prompts, self.prompt_tokens)
            self._prompt_ids = trainer.strategy.broadcast(found)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            self._sample(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self.every_n_steps is None and fitting:
            self._sample(trainer, pl_module)

    def _sample(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        step = trainer.global_step
        if not self._enabled or not self._prompt_ids or step == self._sampled_step:
            return
        self._sampled_step = step
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Throughput):
                callback.pause()
        spread = is_spread(pl_module)
        if not spread and not trainer.is_global_zero:  # goes on, and waits where it has to
            return
        tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        stop = {tokenizer.special[name] for name in ("eos", "end") if name in tokenizer.special}
        device = pl_module.device
        with (
            torch.random.fork_rng(
                [] if device.type == "cpu" else [device],
                device_type="cuda" if device.type == "cpu" else device.type,
            ),
            trainer.precision_plugin.val_step_context(),
            _one_dtype(trainer),
        ):
            write = continue_in_lockstep if spread else continue_prompts
            answers = write(pl_module.gpt, self._prompt_ids, self.sampling, stop)  # type: ignore[arg-type]
        if trainer.is_global_zero:
            texts = [
                {"step": step, "prompt": tokenizer.decode(ids), "text": tokenizer.decode(answer)}
                for ids, answer in zip(self._prompt_ids, answers, strict=True)
            ]
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                _append(Path(trainer.default_root_dir) / SAMPLES_FILE, texts)
            _show(trainer, texts[0])


def _tensor_parallel_size(trainer: L.Trainer) -> int:
    return getattr(trainer.strategy, "tensor_parallel_size", 1)


def _one_dtype(trainer: L.Trainer) -> AbstractContextManager[Any]:
    """Autocast where FSDP2 computes in another dtype than that of the weights, and of the cache."""
    dtype: torch.dtype | None = getattr(trainer.strategy, "param_dtype", None)
    device = trainer.strategy.root_device.type
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def _why_silent(trainer: L.Trainer, pl_module: L.LightningModule) -> str | None:
    """Why no samples can be written, or None if they can."""
    if pl_module.objective.bidirectional:  # type: ignore[union-attr]
        name = type(pl_module.objective).__name__
        return f"{name} sees what comes after a token, so its model cannot continue a text"
    if (size := _tensor_parallel_size(trainer)) > 1:
        return f"tensor_parallel={size} splits the model's matrices"
    return None


def _show(trainer: L.Trainer, sample: dict[str, Any]) -> None:
    text = " ".join(f"{sample['prompt']} → {sample['text']}".split())
    line = f"  {sample['step']:>6}  {text if len(text) <= 110 else text[:109] + '…'}"
    bar = trainer.progress_bar_callback
    bar.print(line) if bar is not None else print(line, flush=True)


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Rows of a samples.jsonl; a last line that was cut off when the process was killed is left."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _begin(path: Path, step: int) -> None:
    """Drop samples of steps that are made again; a new run moves an old file aside."""
    if not path.exists():
        return
    if step == 0:
        move_aside(path)
        return
    rows = [row for row in read_samples(path) if row["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    _append(temporary, rows)
    temporary.replace(path)
