r"""Fill the `[MASK]`s of a prompt with a masked language model.

The marker is split off before the text meets the tokenizer, which can make no control token from
text; `\[MASK]` is the marker's own text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_llm.generation.inputs import check_ids, check_prompt, evaluating, right_pad
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout

MARKER = "[MASK]"


class Candidate(NamedTuple):
    """A token that may stand at a mask."""

    id: int
    probability: float


def split_masks(text: str) -> list[str]:
    r"""The pieces of text between the markers: one more than there are markers.

    >>> split_masks(r"a [MASK] of \[MASK]")
    ['a ', ' of [MASK]']
    """
    pieces = re.split(r"(?<!\\)" + re.escape(MARKER), text)
    return [piece.replace("\\" + MARKER, MARKER) for piece in pieces]


def masked_ids(
    text: str,
    encode: Callable[[str], Sequence[int]],
    mask_id: int,
    *,
    before: Sequence[int] = (),
    after: Sequence[int] = (),
    takes_space: bool = False,
) -> list[int]:
    """Encode a text around its markers; each marker becomes one `mask_id`.

    Args:
        text: a prompt with at least one `[MASK]`
        encode: text to ids, as `Tokenizer.encode`
        mask_id: the control token of masked language modelling
        before: ids that the model saw at every document's start, such as bos
        after: ids that it saw at every document's end, such as eos
        takes_space: a space before a marker belongs to what the mask stands for, as in
            vocabularies whose words begin with their space (RoBERTa's mask does the same); else
            the model would see a lone space, which it never met before a word

    Raises:
        ValueError: there is no marker in the text.
    """
    first, *rest = pieces = split_masks(text)
    if takes_space:
        first, *rest = [*(piece.removesuffix(" ") for piece in pieces[:-1]), pieces[-1]]
    if not rest:
        raise ValueError(
            f"no {MARKER} in prompt {text[:40]!r}: write {MARKER} where a word is open"
        )
    ids = [*before, *encode(first)]
    for piece in rest:
        ids += [mask_id, *encode(piece)]
    return [*ids, *after]


@torch.inference_mode()
def fill(
    gpt: GPT,
    prompts: Sequence[Sequence[int]],
    mask_id: int,
    *,
    top_n: int = 5,
    forbidden_ids: Collection[int] = (),
) -> list[list[list[Candidate]]]:
    """Rank the tokens that fit each mask, seeing the text on both sides of it.

    A mask stands for one token. Several masks of a prompt are filled independently: each sees the
    others as masks.

    Args:
        gpt: a model trained as a masked language model; its mode is the same afterwards
        prompts: ids of each prompt, as `masked_ids` makes them
        mask_id: the id whose places are filled
        top_n: candidates per mask
        forbidden_ids: tokens that are no candidates; the mask itself never is

    Returns:
        For each prompt and each of its masks the likeliest candidates, the likeliest first. Their
        probabilities are relative to the tokens that are allowed.

    Raises:
        ValueError: top_n < 1; a prompt is empty, has no mask, is longer than max_seq_len or has an
            unknown id; no token is allowed.
    """
    vocab_size = gpt.config.vocab_size
    forbidden = sorted({mask_id, *forbidden_ids})
    if top_n < 1:
        raise ValueError(f"top_n={top_n}: ask for 1 candidate or more")
    check_ids("forbidden_ids", forbidden, vocab_size)
    if len(forbidden) == vocab_size:
        raise ValueError("forbidden_ids forbids every token: leave one that can be a candidate")
    for index, prompt in enumerate(prompts):
        check_prompt(f"prompt {index}", prompt, gpt, room=0)
        if mask_id not in prompt:
            raise ValueError(f"prompt {index} has no mask (id {mask_id}): there is nothing to fill")
    if not prompts:
        return []

    top_n = min(top_n, vocab_size - len(forbidden))
    probs_NV = _mask_probabilities(gpt, prompts, mask_id, forbidden)
    probabilities, ids = (top.tolist() for top in probs_NV.topk(top_n, dim=-1))
    ranked = (
        [Candidate(*pair) for pair in zip(*columns, strict=True)]
        for columns in zip(ids, probabilities, strict=True)
    )
    return [[next(ranked) for id in prompt if id == mask_id] for prompt in prompts]


def _mask_probabilities(
    gpt: GPT, prompts: Sequence[Sequence[int]], mask_id: int, forbidden: list[int]
) -> Tensor:
    """Probabilities (N, V) at the N masks of all prompts, row by row from left to right."""
    tokens_BT, lengths_B = right_pad(prompts, gpt.device)
    positions_BT = torch.arange(tokens_BT.size(1), device=gpt.device).expand_as(tokens_BT)
    inside_BT = positions_BT < lengths_B[:, None]
    documents_BT = torch.where(inside_BT, 0, -1)
    is_mask_BT = (tokens_BT == mask_id) & inside_BT

    def at_masks(hidden_BTD: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        return project(hidden_BTD[is_mask_BT])

    with evaluating(gpt):
        layout = Layout.packed(documents_BT, positions_BT, bidirectional=True)
        logits_NV = gpt(tokens_BT, layout, head=at_masks)
    index = torch.tensor(forbidden, device=logits_NV.device)
    return logits_NV.index_fill(-1, index, -torch.inf).softmax(dim=-1)
