"""The network as lm-evaluation-harness wants it, with the results of its own `hf` model.

`lm_eval --model hf` over an export of the same checkpoint gives the same numbers. What follows
`hf` on purpose: a text's rolling likelihood begins with bos twice (the harness's prefix and the
tokenizer's own), answers leave room for max_gen_toks, and what is too long loses its beginning.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lit_llm.evaluation.answers import Prompt, answer
from lit_llm.evaluation.likelihood import OnProgress, Pair, likelihoods
from lit_llm.evaluation.subject import Subject
from lit_llm.generation.sampling import Sampling

NEW_TOKENS = 256  # of an answer, where the task does not say; as `hf` has it
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class HarnessModel(TemplateLM):
    """Answers the three kinds of requests that a task can make.

    Args:
        subject: the model
        on_progress: told how many requests of a kind are done
    """

    def __init__(self, subject: Subject, on_progress: OnProgress) -> None:
        super().__init__()
        self.subject = subject
        self.on_progress = on_progress

    @property
    def eot_token_id(self) -> int:
        return self.subject.tokenizer.special.get("eos", self.subject.prefix_id)

    @property
    def prefix_token_id(self) -> int:
        return self.subject.prefix_id

    @property
    def max_length(self) -> int:
        """Tokens that the network reads at once."""
        return self.subject.gpt.config.max_seq_len

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        if add_special_tokens is False:
            return self.subject.tokenizer.encode(string)
        return self.subject.text_ids(string)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)  # the progress is ours

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        results = self._score([Pair(context, rest) for _, context, rest in requests])
        for (request, _, _), result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request, result)
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        pairs: list[Pair] = []
        ends: list[int] = []
        for request in requests:
            pairs += self._windows(request.args[0])
            ends.append(len(pairs))
        logprobs = [logprob for logprob, _ in self._score(pairs)]
        starts = [0, *ends[:-1]]
        return [sum(logprobs[start:end]) for start, end in zip(starts, ends, strict=True)]

    def _windows(self, text: str) -> list[Pair]:
        """As the harness cuts a text: each window sees one token of the one before it."""
        found = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [Pair(*make_disjoint_window(window)) for window in found]

    def _score(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        scores = likelihoods(
            self.subject.gpt,
            pairs,
            batch_size=self.subject.batch_size,
            on_progress=self.on_progress,
        )
        return [(score.logprob, score.greedy) for score in scores]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        alike: dict[str, list[int]] = defaultdict(list)  # of the same settings
        for index, request in enumerate(requests):
            alike[json.dumps(request.args[1], sort_keys=True)].append(index)
        answers: dict[int, str] = {}
        for indices in alike.values():
            sampling, stop = settings(requests[indices[0]].args[1])
            room = self._room(requests[indices[0]], sampling.max_new_tokens)
            prompts = [
                Prompt(self.tok_encode(requests[index].args[0])[-room:], stop) for index in indices
            ]
            texts = answer(
                self.subject,
                prompts,
                sampling,
                self._after(len(answers), len(requests)),
            )
            answers.update(zip(indices, texts, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _after(self, before: int, total: int) -> OnProgress:
        return lambda done, _: self.on_progress(before + done, total)

    def _room(self, request: Instance, max_new_tokens: int) -> int:
        room = self.max_length - max_new_tokens
        if room < 1:
            raise ValueError(
                f"{request.task_name} wants answers of up to {max_new_tokens} tokens, which leave "
                f"no room for a question in max_seq_len={self.max_length}:\n"
                "give a smaller generation_kwargs.max_gen_toks in the task's file"
            )
        return room


def settings(given: dict[str, Any]) -> tuple[Sampling, tuple[str, ...]]:
    """The harness's `generation_kwargs` in our words.

    Returns:
        The settings, and the strings that end an answer.

    Raises:
        ValueError: there is a setting that we do not have.
    """
    rest = dict(given)
    until = rest.pop("until", None) or []
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    lengths = [rest.pop(name, None) for name in LENGTHS]
    max_new_tokens = next((int(n) for n in lengths if n is not None), NEW_TOKENS)
    do_sample = rest.pop("do_sample", None)
    sampled = {name: rest.pop(name) for name in SAMPLED if rest.get(name) is not None}
    if do_sample is False or (do_sample is None and not sampled.get("temperature")):
        sampled["temperature"] = 0.0
    else:
        sampled.setdefault("temperature", 1.0)
    unknown = [name for name, value in rest.items() if (name, value) != ("num_beams", 1)]
    if unknown:
        raise ValueError(f"generation_kwargs.{unknown[0]} of the task is not known here")
    return Sampling(max_new_tokens=max_new_tokens, **sampled), stop
