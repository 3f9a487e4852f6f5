"""What does the model write after each prompt? Many at once, the longest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from lit_llm.evaluation.likelihood import OnProgress
from lit_llm.evaluation.subject import Subject
from lit_llm.generation.generate import generate
from lit_llm.generation.sampling import Sampling


class Prompt(NamedTuple):
    """What is to be continued, and until which strings."""

    ids: Sequence[int]
    stop: tuple[str, ...]


def answer(
    subject: Subject,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    on_progress: OnProgress,
) -> list[str]:
    """The text that follows each prompt.

    Args:
        subject: the model
        prompts: none longer than max_seq_len - 1
        sampling: the settings, but for `stop`
        on_progress: told how many prompts are answered

    Returns:
        Answers without the strings or tokens that have ended them, in the order of the prompts.
    """
    texts: dict[int, str] = {}
    # One batch has one set of stop strings; beside it only prompts of about its length.
    order = sorted(range(len(prompts)), key=lambda i: (prompts[i].stop, -len(prompts[i].ids)))
    while rest := order[len(texts) :]:
        stop = prompts[rest[0]].stop
        batch = [index for index in rest[: subject.batch_size] if prompts[index].stop == stop]
        results = generate(
            subject.gpt,
            [prompts[index].ids for index in batch],
            replace(sampling, stop=list(stop)),
            stop_ids=subject.stop_ids,
            forbidden_ids=subject.forbidden_ids,
            token_bytes=subject.tokenizer.token_bytes,
        )
        texts.update(zip(batch, [result.text for result in results], strict=True))
        on_progress(len(texts), len(prompts))
    return [texts[index] for index in range(len(prompts))]
