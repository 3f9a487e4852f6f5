"""What happens to ids and model before they meet: checks, padding, eval mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lit_llm.model.gpt import GPT


@contextmanager
def evaluating(gpt: GPT) -> Iterator[None]:
    """Turn dropout off for a while; afterwards each module is in the mode that it had."""
    modes = {module: module.training for module in gpt.modules()}
    gpt.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_ids(name: str, ids: Iterable[int], vocab_size: int) -> None:
    """Refuse ids that the embedding does not have; `name` says whose they are.

    Raises:
        ValueError: an id is outside 0 to vocab_size - 1.
    """
    for id in ids:
        if not 0 <= id < vocab_size:
            raise ValueError(
                f"{name}: token id {id} is outside the model's vocab_size={vocab_size}: "
                "use the tokenizer that the model was trained with"
            )


def check_prompt(name: str, prompt: Sequence[int], gpt: GPT, *, room: int) -> None:
    """Refuse a prompt that the model cannot read.

    Args:
        name: what the message calls it, such as "prompt 3"
        prompt: its ids
        gpt: the model
        room: tokens of the context that must stay free after it

    Raises:
        ValueError: it is empty, too long, or has an id that the model does not know.
    """
    max_seq_len = gpt.config.max_seq_len
    if not prompt:
        raise ValueError(f"{name} has no tokens: begin it with the bos token")
    if len(prompt) + room > max_seq_len:
        raise ValueError(
            f"{name} has {len(prompt)} tokens and needs {room} more, max_seq_len={max_seq_len}:\n"
            f"shorten it, or train with data.seq_len >= {len(prompt) + room}"
        )
    check_ids(name, prompt, gpt.config.vocab_size)


def right_pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as one batch.

    Returns:
        tokens_BT, 0 after a row's end, and lengths_B; both int64.
    """
    longest = max(len(row) for row in rows)
    tokens_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    return tokens_BT, torch.tensor([len(row) for row in rows], device=device)
