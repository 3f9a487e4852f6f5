"""How is a conversation written in tokens, the same in fine-tuning and in answering?

    <s> <user> Who bakes? <end> <assistant> Anna does. <end>
                                            ----------------   learned: what the model is to say

The roles and ends are ids that code puts in; only what stands between them is encoded from text.
A template that were filled in and then encoded as a whole would let a user type the roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lit_llm.tokenizer.base import Tokenizer

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Raises:
        ValueError: the role is none of the three.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ValueError(
                f"role {self.role!r} of a message: choose one of {', '.join(get_args(Role))}"
            )


class ChatTemplate:
    """Our own template; subclass it to write conversations in another way."""

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message]
    ) -> tuple[list[int], list[bool]]:
        """A conversation as training sees it.

        Returns:
            ids, and for each whether to train on predicting it: what the assistant says and the
            end of its turn, so that it learns to stop.

        Raises:
            ValueError: there is no message, or the tokenizer lacks a control token.
        """
        if not messages:
            raise ValueError("a conversation without messages: give at least one")
        end = tokenizer.special_id("end")
        ids, learned = [tokenizer.special_id("bos")], [False]
        for message in messages:
            content = [*tokenizer.encode(message.content), end]
            ids += [tokenizer.special_id(message.role), *content]
            learned += [False, *[message.role == "assistant"] * len(content)]
        return ids, learned

    def prompt(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """The conversation so far and the assistant's role: the model goes on with its answer.

        Raises:
            ValueError: as `encode`.
        """
        ids, _ = self.encode(tokenizer, messages)
        return [*ids, tokenizer.special_id("assistant")]

    def stop_ids(self, tokenizer: Tokenizer) -> set[int]:
        """Ids that end an answer."""
        return {tokenizer.special_id("end"), tokenizer.special_id("eos")}
