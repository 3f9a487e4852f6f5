"""How likely are continuations? Many at once, the longest first, contexts cut on the left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_llm.generation.inputs import check_ids, evaluating, right_pad
from lit_llm.model.gpt import GPT

LOGITS_AT_ONCE = 2**26  # 256 MB of float32: 1300 positions of 50,304 ids

OnProgress = Callable[[int, int], None]
"""Called with (done, all) after each batch."""


class Pair(NamedTuple):
    """What is read, and what is asked: how likely does it go on so?"""

    context: Sequence[int]
    continuation: Sequence[int]


class Likelihood(NamedTuple):
    """How likely one continuation is."""

    logprob: float
    """Sum over the continuation's tokens, in nats"""

    greedy: bool
    """Whether each of its tokens is the likeliest one at its place"""


class _Place(NamedTuple):
    """Where the tokens of one pair are predicted: the last columns of a row of the batch."""

    pair: int
    row: int
    columns: range
    targets: Sequence[int]


def likelihoods(
    gpt: GPT,
    pairs: Sequence[Pair],
    *,
    batch_size: int,
    on_progress: OnProgress | None = None,
) -> list[Likelihood]:
    """Score many pairs; a context that is too long loses its beginning.

    Pairs that read the same tokens are read once: the choices of a question whose answers are one
    token each cost one forward pass.

    Args:
        gpt: the network; its mode (train or eval) is the same afterwards
        pairs: ids; at least one of each context stays, for something has to predict
        batch_size: rows of a forward pass
        on_progress: told how many of the pairs are done

    Returns:
        One result per pair, in their order.

    Raises:
        ValueError: a context or a continuation is empty, a continuation is longer than
            max_seq_len, an id is unknown to the model, or its logits are NaN.
    """
    waiting: dict[tuple[int, ...], list[int]] = {}  # what is read: the pairs that read it
    for index, pair in enumerate(pairs):
        waiting.setdefault(_read(index, pair, gpt), []).append(index)
    results: dict[int, Likelihood] = {}
    for rows in _batches(sorted(waiting, key=len, reverse=True), batch_size):
        places = [
            _place(index, row, read, pairs[index].continuation)
            for row, read in enumerate(rows)
            for index in waiting[read]
        ]
        results.update(_score(gpt, rows, places))
        if on_progress is not None:
            on_progress(len(results), len(pairs))
    return [results[index] for index in range(len(pairs))]


def _read(index: int, pair: Pair, gpt: GPT) -> tuple[int, ...]:
    """The tokens that predict a continuation: all but its last one, which nothing follows."""
    room = gpt.config.max_seq_len
    if not pair.continuation or not pair.context:
        which = "context" if pair.continuation else "continuation"
        raise ValueError(f"{which} {index} has no tokens: there is nothing to score")
    if len(pair.continuation) > room:
        raise ValueError(
            f"continuation {index} has {len(pair.continuation)} tokens, max_seq_len={room}: "
            "shorten it, or train with a larger data.seq_len"
        )
    read = (*pair.context, *pair.continuation)[-(room + 1) :][:-1]
    check_ids(f"pair {index}", (*read, pair.continuation[-1]), gpt.config.vocab_size)
    return read


def _place(index: int, row: int, read: Sequence[int], continuation: Sequence[int]) -> _Place:
    return _Place(index, row, range(len(read) - len(continuation), len(read)), continuation)


@torch.inference_mode()
def _score(
    gpt: GPT, rows: Sequence[Sequence[int]], places: Sequence[_Place]
) -> Iterator[tuple[int, Likelihood]]:
    rows_N = [place.row for place in places for _ in place.columns]
    columns_N = [column for place in places for column in place.columns]
    targets_N = torch.tensor([id for place in places for id in place.targets], device=gpt.device)
    at_once = max(1, LOGITS_AT_ONCE // gpt.config.vocab_size)

    def scored(hidden_BTD: Tensor, project: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        hidden_ND = hidden_BTD[rows_N, columns_N]
        logprobs, hits = [], []
        for hidden, targets in zip(hidden_ND.split(at_once), targets_N.split(at_once), strict=True):
            logprobs_NV = project(hidden).log_softmax(dim=-1)
            logprobs.append(logprobs_NV.gather(-1, targets[:, None])[:, 0])
            hits.append(logprobs_NV.argmax(dim=-1) == targets)
        return torch.cat(logprobs), torch.cat(hits)

    with evaluating(gpt):
        logprobs_N, hits_N = gpt(right_pad(rows, gpt.device)[0], head=scored)
    lengths = [len(place.columns) for place in places]
    # float64: a long text's sum is thousands of nats, of which float32 keeps 3 decimals
    parts = logprobs_N.cpu().double().split(lengths), hits_N.cpu().split(lengths)
    return iter(
        [
            (place.pair, Likelihood(_finite(logprobs.sum().item()), bool(hits.all())))
            for place, logprobs, hits in zip(places, *parts, strict=True)
        ]
    )


def _finite(logprob: float) -> float:
    if math.isnan(logprob):
        raise ValueError("the model's logits are NaN: its weights diverged, use earlier ones")
    return logprob


def _batches(rows: Sequence[tuple[int, ...]], size: int) -> Iterator[Sequence[tuple[int, ...]]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
