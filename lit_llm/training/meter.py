"""Sums of losses turned into the numbers that are logged.

Nothing here waits for the device until a number is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

from lit_llm.data.batch import IGNORE
from lit_llm.objective import LossSums


def metrics_of(prefix: str, loss: Tensor, tokens: Tensor, n_bytes: Tensor) -> dict[str, Tensor]:
    """Loss (nats per token), perplexity and bits per byte of summed losses and counts."""
    mean = loss / tokens
    return {
        f"{prefix}/loss": mean,
        f"{prefix}/perplexity": mean.exp(),
        # Comparable between tokenizers, as a loss per token is not.
        f"{prefix}/bits_per_byte": loss / math.log(2) / n_bytes,
    }


def count_bytes(targets_BT: Tensor, token_bytes_V: Tensor) -> Tensor:
    """UTF-8 bytes of the text that the targets stand for."""
    valid_BT = targets_BT != IGNORE
    return (token_bytes_V[targets_BT.clamp(min=0)] * valid_BT).sum()


class TrainMeter:
    """Sums of one optimizer step on this rank."""

    def __init__(self) -> None:
        self.grad_norm: Tensor | None = None
        self.token_bytes_V = torch.zeros(0, dtype=torch.int32)
        self._zero = torch.zeros(())
        self.reset()

    def reset(self) -> None:
        self.loss = self.tokens = self.n_bytes = self._zero
        self.has_targets = False

    def prepare(self, token_bytes_V: Tensor, device: torch.device) -> None:
        """Learn the bytes of each token and where the sums will be taken."""
        self.token_bytes_V = token_bytes_V.to(device)
        self._zero = self._zero.to(device)
        self.reset()

    def saw_batch(self, has_targets: bool) -> None:
        self.has_targets |= has_targets

    def add(self, sums: LossSums, *, count: bool = True) -> None:
        """Add a micro-batch; its bytes only with `count`, for steps whose `compute` is called."""
        self.loss = self.loss + sums.loss.detach()
        self.tokens = self.tokens + sums.tokens
        if count:
            self.n_bytes = self.n_bytes + count_bytes(sums.targets_BT, self.token_bytes_V)

    def compute(self, dp_sum: Callable[..., tuple[Tensor, ...]]) -> dict[str, Tensor]:
        """Metrics of the step over all ranks; every rank has to call it."""
        metrics = metrics_of("train", *dp_sum(self.loss, self.tokens, self.n_bytes))
        if self.grad_norm is not None:
            metrics["train/grad_norm"] = self.grad_norm
        return metrics


class ValMeter(nn.Module):
    """Sums of one validation over all its batches and, through torchmetrics, all ranks."""

    token_bytes_V: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.loss, self.tokens, self.n_bytes = SumMetric(), SumMetric(), SumMetric()
        self.register_buffer("token_bytes_V", torch.zeros(0, dtype=torch.int32), persistent=False)

    def prepare(self, token_bytes_V: Tensor, device: torch.device) -> None:
        """Learn the bytes of each token and where the sums will be taken."""
        self.token_bytes_V = token_bytes_V
        # float32 stops counting single tokens at 16.8 million; Apple's GPUs know no float64
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        for metric in (self.loss, self.tokens, self.n_bytes):
            metric.set_dtype(self.dtype)

    def add(self, sums: LossSums) -> None:
        self.loss.update(sums.loss.to(self.dtype))
        self.tokens.update(sums.tokens.to(self.dtype))
        n_bytes = count_bytes(sums.targets_BT, self.token_bytes_V)
        self.n_bytes.update(n_bytes.to(self.dtype))

    def compute(self) -> dict[str, Tensor]:
        sums = (self.loss.compute(), self.tokens.compute(), self.n_bytes.compute())
        return {name: value.float() for name, value in metrics_of("val", *sums).items()}

    def reset(self) -> None:
        for metric in (self.loss, self.tokens, self.n_bytes):
            metric.reset()
