"""One prompt on its way to an answer: its ids, its text and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from lit_llm.generation.sampling import Sampling, row_generator
from lit_llm.generation.stop import TextStream

FinishReason = Literal["stop_token", "stop_string", "length", "context"]
"""stop_token: one of stop_ids; length: max_new_tokens; context: prompt + ids fill max_seq_len."""


@dataclass(frozen=True)
class Generated:
    """The continuation of one prompt."""

    ids: list[int]
    """generated tokens, without the stop token, with those that spell a stop string"""

    logprobs: list[float]
    """of each id: its log-probability in nats under the model, before any sampling setting"""

    text: str
    """what the ids spell, without the stop string; empty if no `token_bytes` was given"""

    finish_reason: FinishReason
    """why it ended"""


class Row:
    """A prompt and what has followed it so far.

    Args:
        index: place of the prompt among the prompts of the call
        prompt: its ids
        copy: how many equal prompts came before it
        sampling: the settings
        stop_ids: tokens that end it
        token_bytes: the UTF-8 bytes of a token
        max_seq_len: tokens that prompt and answer may have together
    """

    def __init__(
        self,
        index: int,
        prompt: Sequence[int],
        copy: int,
        sampling: Sampling,
        stop_ids: Collection[int],
        token_bytes: Callable[[int], bytes],
        max_seq_len: int,
    ) -> None:
        self.index = index
        self.prompt = list(prompt)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self.generator = row_generator(sampling.seed, self.prompt, copy)
        self.text = TextStream(token_bytes, sampling.stop)
        self.stop_ids = stop_ids
        self.max_new_tokens = min(sampling.max_new_tokens, max_seq_len - len(self.prompt))
        self.when_full: FinishReason = (
            "length" if self.max_new_tokens == sampling.max_new_tokens else "context"
        )

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.prompt) + len(self.ids)

    def push(self, id: int, logprob: float) -> str:
        """Take the next token; returns the text that it makes final."""
        if id in self.stop_ids:
            self.finish_reason = "stop_token"
            return self.text.finish()
        self.ids.append(id)
        self.logprobs.append(logprob)
        piece = self.text.push(id)
        if self.text.stopped:
            self.finish_reason = "stop_string"
        elif len(self.ids) == self.max_new_tokens:
            self.finish_reason = self.when_full
            piece += self.text.finish()
        return piece

    def result(self) -> Generated:
        assert self.finish_reason is not None
        return Generated(self.ids, self.logprobs, self.text.text, self.finish_reason)
