"""Injuries to a run under training, as callbacks that a configuration names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.objective.base import LossSums


class SpoilGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class Spoiled:
    """An objective whose loss, or the gradient of it, is spoiled."""

    def __init__(self, objective: Any, where: str, value: float) -> None:
        self.objective, self.where, self.value = objective, where, value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __call__(self, gpt: Any, batch: Batch, generator: Any = None) -> LossSums:
        sums = self.objective(gpt, batch, generator)
        if self.where == "loss":
            return sums._replace(loss=sums.loss * self.value)
        return sums._replace(loss=SpoilGradient.apply(sums.loss, self.value))


class Injury(L.Callback):
    """Injures a run, and writes down what a step has changed and which tokens it has seen.

    Args:
        where: what becomes `value`
        steps: in which steps, counted from 1
        value: what to multiply with, "nan" or "inf"
        rank: on which process; null: all
        micro_batch: in which micro-batch of the step
        once: do it only as long as this file does not exist, and make it
        notes: where to write; a file for each process
    """

    def __init__(
        self,
        notes: str,
        where: Literal["loss", "gradient", "parameter"] = "loss",
        steps: list[int] | None = None,
        value: str = "nan",
        rank: int | None = None,
        micro_batch: int = 0,
        once: str | None = None,
    ) -> None:
        self.where, self.steps, self.value = where, steps or [], float(value)
        self.rank, self.micro_batch = rank, micro_batch
        self.once = Path(once) if once else None
        self.notes = Path(notes)
        self.seen: list[Any] = []

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        micro_batch = batch_idx % trainer.accumulate_grad_batches
        if micro_batch == 0:
            self.before = state(trainer)
            self.tokens: list[list[int]] = []
        self.tokens += batch.tokens_BT.tolist()
        self.objective = pl_module.objective
        due = trainer.global_step + 1 in self.steps and self.rank in (None, trainer.global_rank)
        if not due or micro_batch != self.micro_batch or (self.once and self.once.exists()):
            return
        if self.where == "parameter":
            local(parameters(trainer)[3].data).view(-1)[1] = self.value
        else:
            pl_module.objective = Spoiled(self.objective, self.where, self.value)
        if self.once:
            self.once.touch()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        pl_module.objective = self.objective
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        after = state(trainer)
        # What a first step creates has to be what an optimizer begins with.
        same = [
            name
            for name, tensor in after.items()
            if torch.equal(tensor, self.before.get(name, torch.zeros_like(tensor)))
        ]
        with Path(f"{self.notes}-{trainer.global_rank}.jsonl").open("a") as file:
            note = {
                "step": trainer.global_step,
                "changed": sorted(after.keys() - set(same)),
                "tensors": len(after),
                "tokens": self.tokens,
            }
            file.write(json.dumps(note) + "\n")


def parameters(trainer: L.Trainer) -> list[Tensor]:
    """What the optimizer updates; the network may have gathered copies in its place."""
    groups = trainer.optimizers[0].param_groups
    return [parameter for group in groups for parameter in group["params"]]


def state(trainer: L.Trainer) -> dict[str, Tensor]:
    """Copies of this process's part of all weights and all that the optimizer remembers."""
    found = {}
    for number, parameter in enumerate(parameters(trainer)):
        found[f"{number}"] = parameter
        remembered = trainer.optimizers[0].state.get(parameter, {})
        found |= {f"{number} {key}": value for key, value in remembered.items()}
    return {name: local(tensor).detach().clone() for name, tensor in found.items()}


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Poison(L.Callback):
    """Replaces the text of some steps.

    Args:
        steps: which, counted from 1
        kind: `random` tokens, `shuffled` ones, or labels that are `shifted` by one
    """

    def __init__(
        self, steps: list[int], kind: Literal["random", "shuffled", "shifted"] = "random"
    ) -> None:
        self.steps, self.kind = steps, kind

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step + 1 not in self.steps:
            return
        generator = torch.Generator().manual_seed(trainer.global_step)
        valid_BT = batch.labels_BT != IGNORE
        if self.kind == "shifted":
            batch.labels_BT.copy_(torch.where(valid_BT, batch.labels_BT.roll(1, 1), IGNORE))
            batch.labels_BT[:, 0] = IGNORE
            return
        tokens_BT = batch.tokens_BT
        if self.kind == "random":
            ids = pl_module.gpt_config.vocab_size
            tokens_BT = torch.randint(ids, tokens_BT.shape, generator=generator)
        else:
            order = torch.randperm(tokens_BT.numel(), generator=generator)
            tokens_BT = tokens_BT.flatten()[order].view_as(tokens_BT)
        batch.tokens_BT.copy_(tokens_BT)
        labels_BT = torch.cat((tokens_BT[:, 1:], tokens_BT[:, :1]), dim=1)
        batch.labels_BT.copy_(torch.where(valid_BT, labels_BT, IGNORE))
