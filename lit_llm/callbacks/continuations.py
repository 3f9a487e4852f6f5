"""How a model that is being trained continues texts, and which texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lit_llm.data.batch import IGNORE, Batch
from lit_llm.generation.generate import generate
from lit_llm.generation.sampling import Sampling
from lit_llm.model.gpt import GPT


def continue_prompts(
    gpt: GPT, prompts: Sequence[Sequence[int]], sampling: Sampling, stop_ids: set[int]
) -> list[list[int]]:
    """Ids that follow each prompt, from blocks that run as they stand in the source.

    Generation meets a new shape at each token. Compiled blocks would be compiled again for some
    of them, until the limit of 8 (torch._dynamo.config.recompile_limit) turns compilation off for
    training too.
    """
    with torch.compiler.set_stance("force_eager"):
        return [row.ids for row in generate(gpt, prompts, sampling, stop_ids=stop_ids)]


def continue_in_lockstep(
    gpt: GPT, prompts: Sequence[Sequence[int]], sampling: Sampling, stop_ids: set[int]
) -> list[list[int]]:
    """What `continue_prompts` gives, by a number of forward passes that no token decides.

    A forward pass of a spread model gathers weights from all processes. If one of them stopped a
    text earlier, by a last bit that it rounds differently, the others would wait for it in vain:
    so all texts go on to their full length, and are cut afterwards.
    """
    answers = continue_prompts(gpt, prompts, sampling, set())
    if isinstance(gpt, FSDPModule):
        gpt.reshard()  # a backward pass, which does so in training, never came
    return [list(takewhile(lambda id: id not in stop_ids, answer)) for answer in answers]


def is_spread(module: nn.Module) -> bool:
    """Whether a forward pass needs other processes, as under FSDP2."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


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
