"""How likely is a given continuation? For cloze questions and multiple choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_llm.generation.inputs import check_ids, check_prompt, evaluating, right_pad
from lit_llm.model.gpt import GPT


def score(gpt: GPT, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> float:
    """Log-probability in nats that the prompt goes on with exactly this continuation.

    Longer continuations score lower: divide by their length, in tokens or bytes, to compare them.
    Errors are those of `score_batch`.
    """
    return score_batch(gpt, [(prompt_ids, continuation_ids)])[0]


@torch.inference_mode()
def score_batch(gpt: GPT, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
    """Score many (prompt, continuation) pairs in one forward pass.

    Args:
        gpt: the model; its mode (train or eval) is the same afterwards
        pairs: ids of prompts and continuations

    Returns:
        The sum of the log-probabilities of each continuation's tokens, in nats.

    Raises:
        ValueError: a prompt or a continuation is empty, both together are longer than
            max_seq_len + 1, or an id is unknown to the model.
    """
    if not pairs:
        return []
    for index, (prompt, continuation) in enumerate(pairs):
        if not continuation:
            raise ValueError(f"continuation {index} has no tokens: there is nothing to score")
        # the last token is scored and never read
        check_prompt(f"prompt {index}", prompt, gpt, room=len(continuation) - 1)
        check_ids(f"continuation {index}", continuation, gpt.config.vocab_size)

    # The token before each scored one predicts it: rows_N and columns_N point at those.
    rows_N: list[int] = []
    columns_N: list[int] = []
    targets_N: list[int] = []
    for row, (prompt, continuation) in enumerate(pairs):
        rows_N += [row] * len(continuation)
        columns_N += range(len(prompt) - 1, len(prompt) - 1 + len(continuation))
        targets_N += continuation

    def logprobs_of_targets(hidden_BTD: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        logprobs_NV = project(hidden_BTD[rows_N, columns_N]).log_softmax(dim=-1)
        return logprobs_NV.gather(-1, torch.tensor(targets_N, device=gpt.device)[:, None])[:, 0]

    tokens_BT, _ = right_pad([[*prompt, *rest[:-1]] for prompt, rest in pairs], gpt.device)
    with evaluating(gpt):
        logprobs_N = gpt(tokens_BT, head=logprobs_of_targets)
    sums_B = torch.zeros(len(pairs), dtype=logprobs_N.dtype, device=gpt.device)
    scores: list[float] = sums_B.index_add(
        0, torch.tensor(rows_N, device=gpt.device), logprobs_N
    ).tolist()
    return scores
