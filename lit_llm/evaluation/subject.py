"""What is evaluated: the network, its tokenizer, and how its prompts begin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lit_llm.checkpoint.bundle import load_model, read_meta
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer import Message, Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Subject:
    """A model that answers questions about itself."""

    gpt: GPT
    """The network, on its device, in its precision"""

    tokenizer: Tokenizer
    """What it was trained with"""

    chat: bool
    """Whether it was trained on conversations"""

    batch_size: int = 16
    """Rows of a forward pass"""

    step: int | None = None
    """Optimizer steps that it was trained for, if that is known"""

    @property
    def prefix_id(self) -> int:
        """What stands before a text's first token, so that something predicts that one too.

        Raises:
            ValueError: the tokenizer has neither a bos nor an eos token.
        """
        special = self.tokenizer.special
        return special["bos"] if "bos" in special else self.tokenizer.special_id("eos")

    @property
    def stop_ids(self) -> set[int]:
        """Ids that end an answer: of a text, and of a turn."""
        return self.tokenizer.stop_ids(chat=self.chat)

    @property
    def forbidden_ids(self) -> set[int]:
        """Ids that no answer has."""
        return self.tokenizer.unsaid_ids(self.gpt.config.vocab_size, chat=self.chat)

    def text_ids(self, text: str) -> list[int]:
        """The beginning of a text, with what stood before each text in training."""
        return self.tokenizer.document(self.tokenizer.encode(text))

    def conversation_ids(self, asked: str | Sequence[Message]) -> list[int]:
        """A turn of the user, or a conversation so far, to be answered by the assistant."""
        messages = [Message("user", asked)] if isinstance(asked, str) else asked
        return self.tokenizer.chat_template.prompt(self.tokenizer, messages)

    def about(self) -> dict[str, Any]:
        """What the numbers depend on, besides the task; plain values."""
        weight = self.gpt.embed.weight
        return {
            "step": self.step,
            "parameters": sum(parameter.numel() for parameter in self.gpt.parameters()),
            "device": str(weight.device),
            "dtype": str(weight.dtype).removeprefix("torch."),
            "context": self.gpt.config.max_seq_len,
        }


def load_subject(folder: Path, *, device: str, precision: str, batch_size: int) -> Subject:
    """Load a checkpoint, to evaluate it.

    Args:
        folder: as `lit_llm.checkpoint.find.resolve` gives it
        device: auto (a GPU where there is one), or as PyTorch names it
        precision: saved, float32 or bfloat16
        batch_size: rows of a forward pass

    Raises:
        ValueError: the model fills masks, has no tokenizer, or the device is not there.
    """
    meta = read_meta(folder)
    if meta.get("bidirectional"):
        raise ValueError(
            f"{folder} fills masks and sees both sides of a word: evaluate needs a model that "
            "predicts the next token; validate measures this one's loss"
        )
    gpt, bundle = load_model(folder, device=_device(device))
    if bundle.tokenizer is None:
        raise ValueError(f"{folder} holds no tokenizer: it cannot read a text")
    if precision != "saved":
        gpt.to(DTYPES[precision])
    return Subject(
        gpt,
        bundle.tokenizer,
        chat=bool(meta.get("chat")),
        batch_size=batch_size,
        step=meta.get("step"),
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"--device {name}: give auto, cpu, cuda, cuda:1 or mps")
    device, count = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"--device {name}: PyTorch finds {count} such devices; give cpu or auto")
    return device
