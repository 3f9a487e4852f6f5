"""What the model writes while it learns: continuations of the same few prompts, again and again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_llm.callbacks.csv_log import move_aside
from lit_llm.callbacks.throughput import Throughput
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.generation.generate import generate
from lit_llm.generation.sampling import Sampling
from lit_llm.model.gpt import GPT

SAMPLES_FILE = "samples.jsonl"


class Samples(L.Callback):
    """Continues prompts with the current model and appends the results to `samples.jsonl`.

    A run learns the same with or without it: neither random numbers nor the model's mode are
    touched. Objectives that see both directions are left alone, for such a model cannot
    continue a text.

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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._sampled_step = trainer.global_step
        self._enabled = not pl_module.objective.bidirectional  # type: ignore[union-attr]
        if not self._enabled:
            rank_zero_info(
                f"no samples: {type(pl_module.objective).__name__} sees what comes after a token, "
                "so its model cannot continue a text"
            )
            return
        if self.prompts is not None:
            tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
            bos = [tokenizer.special["bos"]] if "bos" in tokenizer.special else []
            self._prompt_ids = [bos + tokenizer.encode(text) for text in self.prompts]
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
        if batch_idx == 0 and self.prompts is None and not self._prompt_ids:
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
        tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        stop = {tokenizer.special[name] for name in ("eos", "end") if name in tokenizer.special}
        device = pl_module.device
        with (
            torch.random.fork_rng(
                [] if device.type == "cpu" else [device],
                device_type="cuda" if device.type == "cpu" else device.type,
            ),
            trainer.precision_plugin.val_step_context(),
        ):
            answers = continue_prompts(pl_module.gpt, self._prompt_ids, self.sampling, stop)  # type: ignore[arg-type]
        if trainer.is_global_zero:
            texts = [
                {"step": step, "prompt": tokenizer.decode(ids), "text": tokenizer.decode(answer)}
                for ids, answer in zip(self._prompt_ids, answers, strict=True)
            ]
            if not trainer.fast_dev_run:  # type: ignore[attr-defined]
                _append(Path(trainer.default_root_dir) / SAMPLES_FILE, texts)
            _show(trainer, texts[0])


def continue_prompts(
    gpt: GPT, prompts: Sequence[Sequence[int]], sampling: Sampling, stop_ids: set[int]
) -> list[list[int]]:
    """Ids that follow each prompt, from blocks that run as they stand in the source.

    Generation meets a new shape at each token. Compiled blocks would be compiled again for some
    of them, until the limit of 8 (torch._dynamo.config.recompile_limit) turns compilation off for
    training too.
    """
    if any(module._compiled_call_impl is not None for module in gpt.modules()):
        with torch.compiler.set_stance("force_eager"):
            return [row.ids for row in generate(gpt, prompts, sampling, stop_ids=stop_ids)]
    return [row.ids for row in generate(gpt, prompts, sampling, stop_ids=stop_ids)]


def document_beginnings(batch: Batch, count: int, length: int) -> list[list[int]]:
    """The first tokens of some documents of a batch, from as many different rows as possible.

    A conversation, known by its tokens without a label at the start, goes up to where the answer
    begins. Documents that are no longer than what is taken are passed by.
    """
    fields = Batch(*(field.cpu() for field in batch))
    per_row = [
        list(_beginnings(*row, length=length))
        for row in zip(fields.tokens_BT, fields.labels_BT, fields.documents_BT, strict=True)
    ]
    longest = max(map(len, per_row), default=0)
    in_turn = [row[i] for i in range(longest) for row in per_row if i < len(row)]
    return in_turn[:count]


def _beginnings(
    tokens_T: Tensor, labels_T: Tensor, documents_T: Tensor, *, length: int
) -> list[list[int]]:
    numbers: list[int] = documents_T.unique_consecutive().tolist()
    found = []
    for number in numbers:
        here = documents_T == number
        tokens: list[int] = tokens_T[here].tolist()
        answered: list[bool] = (labels_T[here] != IGNORE).tolist()
        if number < 0 or not any(answered):
            continue
        take = length if answered[0] else answered.index(True) + 1
        if take < len(tokens):
            found.append(tokens[:take])
    return found


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
