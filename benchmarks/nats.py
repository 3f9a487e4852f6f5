"""How well a model predicts a text, by one measure whatever the model: nats per character.

Imports PyTorch alone, for this also runs where lit-llm is not installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 32  # windows that are read at a time
HELD_OUT = 0.1


def cut(text: str) -> tuple[str, str]:
    """What is trained on, and the last tenth: nanoGPT's cut, and ours of one long document."""
    place = int(len(text) * (1 - HELD_OUT))
    return text[:place], text[place:]


@torch.no_grad()
def summed_nats(logits_of: Callable[[Tensor], Tensor], ids: Sequence[int], context: int) -> float:
    """Surprise about every id but the first, each of which is predicted once.

    The text is read in windows that do not overlap, so that the first prediction of a window sees
    one id and the last one `context`.

    Args:
        logits_of: of inputs_BT, the logits (B, T, V); in evaluation mode
        ids: of the text, and before them one that is only seen
        context: ids of a window

    Returns:
        Nats, summed.
    """
    inputs, targets = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
    whole = len(targets) // context * context
    inputs_NT, targets_NT = inputs[:whole].view(-1, context), targets[:whole].view(-1, context)
    batches = list(zip(inputs_NT.split(ROWS), targets_NT.split(ROWS), strict=True)) if whole else []
    if whole < len(targets):
        batches.append((inputs[None, whole:], targets[None, whole:]))
    sums = (
        F.cross_entropy(logits_of(x).float().flatten(0, 1), y.flatten(), reduction="sum").item()
        for x, y in batches
    )
    return math.fsum(sums)
