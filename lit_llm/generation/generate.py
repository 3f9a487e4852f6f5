"""Continue prompts, many at once: prefill, then one token per row and step.

A prompt's answer does not depend on what else is in the batch. Its random numbers come from a
generator of its own, and no row sees another; what remains is the last bits of the logits, which
matrix products round differently for another batch size. They choose another token only where two
are equally likely to about 1e-6.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from lit_llm.generation.inputs import check_ids, check_prompt, evaluating, right_pad
from lit_llm.generation.row import Generated, Row
from lit_llm.generation.sampling import Sampling, next_tokens
from lit_llm.model.cache import KVCache
from lit_llm.model.gpt import GPT
from lit_llm.model.layout import Layout


def generate(
    gpt: GPT,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    forbidden_ids: Collection[int] = (),
    token_bytes: Callable[[int], bytes] | None = None,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generated]:
    """Continue every prompt; equal prompts get different samples.

    All prompts run as one batch whose cache holds the longest prompt plus max_new_tokens for each:
    pass as many at a time as fit into memory.

    Args:
        gpt: the model; its mode (train or eval) is the same afterwards
        prompts: ids of each prompt, bos included if the model was trained with it
        sampling: the settings
        stop_ids: tokens that end an answer
        forbidden_ids: tokens that are never generated, such as padding
        token_bytes: the UTF-8 bytes of a token, as `Tokenizer.token_bytes`; needed for text
        on_text: called with (index of the prompt, new text) as soon as text is final

    Returns:
        One result per prompt, in the order of the prompts.

    Raises:
        ValueError: a prompt is empty, leaves no room in the context or has an unknown id; stop
            strings or on_text are given without token_bytes; the model's logits are NaN.
    """
    if on_text is not None and token_bytes is None:
        raise ValueError("on_text needs the text of a token: pass token_bytes too")
    run = _Run(gpt, prompts, sampling, stop_ids, forbidden_ids, token_bytes)
    for index, piece in run.steps():
        if on_text is not None:
            on_text(index, piece)
    return [row.result() for row in run.rows]


def stream(
    gpt: GPT,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    token_bytes: Callable[[int], bytes],
    stop_ids: Collection[int] = (),
    forbidden_ids: Collection[int] = (),
) -> Iterator[str]:
    """Continue one prompt and yield its text as it grows.

    The pieces are whole characters, hold no part of a stop string, and together are the `text`
    that `generate` returns. Arguments and errors are those of `generate`; errors in the arguments
    are raised at once, not at the first piece.
    """
    run = _Run(gpt, [prompt], sampling, stop_ids, forbidden_ids, token_bytes)
    return (piece for _, piece in run.steps())


@torch.inference_mode()
def prefill(gpt: GPT, prompts: Sequence[Sequence[int]], cache: KVCache) -> Tensor:
    """Read all prompts into the cache; logits_BV after the last token of each.

    Slots after a shorter prompt's end hold the padding's keys. No query sees them: its own tokens
    take those slots, one by one, before it does.
    """
    tokens_BT, lengths_B = right_pad(prompts, gpt.device)
    positions_BT = torch.arange(tokens_BT.size(1), device=gpt.device).expand_as(tokens_BT)
    layout = Layout.prefill(positions_BT, cache.slots)
    return gpt(tokens_BT, layout, cache, only_B=lengths_B - 1)[:, 0]


@torch.inference_mode()
def decode(gpt: GPT, ids_B: Tensor, positions_B: Tensor, cache: KVCache) -> Tensor:
    """Append one token to every row of the cache; logits_BV after it."""
    layout = Layout.cached(positions_B[:, None], cache.slots)
    return gpt(ids_B[:, None], layout, cache)[:, 0]


class _Run:
    """The rows of one call and the loop over them."""

    def __init__(
        self,
        gpt: GPT,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        stop_ids: Collection[int],
        forbidden_ids: Collection[int],
        token_bytes: Callable[[int], bytes] | None,
    ) -> None:
        for index, prompt in enumerate(prompts):
            check_prompt(f"prompt {index}", prompt, gpt, room=1)
        check_ids("forbidden_ids", forbidden_ids, gpt.config.vocab_size)
        if len(set(forbidden_ids)) == gpt.config.vocab_size:
            raise ValueError("forbidden_ids forbids every token: leave one that can be generated")
        if sampling.stop and token_bytes is None:
            raise ValueError("stop strings need the text of a token: pass token_bytes too")
        self.gpt = gpt
        self.sampling = sampling
        self.forbidden = sorted(set(forbidden_ids))
        self.rows: list[Row] = []
        copies: Counter[tuple[int, ...]] = Counter()
        for index, prompt in enumerate(prompts):
            copy = copies[tuple(prompt)]
            copies[tuple(prompt)] += 1
            self.rows.append(
                Row(
                    index,
                    prompt,
                    copy,
                    sampling,
                    frozenset(stop_ids),
                    token_bytes or (lambda id: b""),
                    gpt.config.max_seq_len,
                )
            )

    def steps(self) -> Iterator[tuple[int, str]]:
        """Yield (index of the prompt, new text) until every row has finished."""
        if not self.rows:
            return
        gpt, active = self.gpt, self.rows
        with evaluating(gpt):
            cache = self._cache()
            forbidden = self._forbidden()
            seen_BV = self._seen()
            logits_BV = prefill(gpt, [row.prompt for row in active], cache)
            while True:
                ids_B = next_tokens(
                    logits_BV,
                    self.sampling,
                    generators=[row.generator for row in active],
                    forbidden=forbidden,
                    seen_BV=seen_BV,
                )
                for row, id, logprob in zip(
                    active, ids_B.tolist(), _logprobs(logits_BV, ids_B), strict=True
                ):
                    if piece := row.push(id, logprob):
                        yield row.index, piece

                going = [i for i, row in enumerate(active) if row.finish_reason is None]
                if not going:
                    return
                if len(going) < len(active):
                    keep = torch.tensor(going, device=gpt.device)
                    cache.keep(keep)
                    ids_B, active = ids_B[keep], [active[i] for i in going]
                    seen_BV = None if seen_BV is None else seen_BV[keep]
                if seen_BV is not None:
                    seen_BV.scatter_(1, ids_B[:, None], True)
                positions = [row.length - 1 for row in active]
                logits_BV = decode(gpt, ids_B, torch.tensor(positions, device=gpt.device), cache)

    def _cache(self) -> KVCache:
        longest = max(len(row.prompt) for row in self.rows)
        return KVCache(
            self.gpt.config,
            len(self.rows),
            min(self.gpt.config.max_seq_len, longest + self.sampling.max_new_tokens),
            device=self.gpt.device,
            dtype=self.gpt.embed.weight.dtype,
        )

    def _forbidden(self) -> Tensor | None:
        """As `next_tokens` takes them; None of none, for an empty change copies all logits."""
        if not self.forbidden:
            return None
        return torch.tensor(self.forbidden, dtype=torch.int64, device=self.gpt.device)

    def _seen(self) -> Tensor | None:
        """What the repetition penalty applies to: bool (B, V), or None if there is no penalty."""
        if self.sampling.repetition_penalty == 1:
            return None
        shape = len(self.rows), self.gpt.config.vocab_size
        seen_BV = torch.zeros(shape, dtype=torch.bool, device=self.gpt.device)
        for seen_V, row in zip(seen_BV, self.rows, strict=True):
            seen_V[row.prompt] = True
        return seen_BV


def _logprobs(logits_BV: Tensor, ids_B: Tensor) -> list[float]:
    chosen_B = logits_BV.gather(-1, ids_B[:, None])[:, 0]
    logprobs: list[float] = (chosen_B - logits_BV.logsumexp(dim=-1)).tolist()
    if any(math.isnan(logprob) for logprob in logprobs):
        raise ValueError("the model's logits are NaN: its weights diverged, use earlier ones")
    return logprobs
