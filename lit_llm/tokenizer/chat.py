"""How is a conversation written in tokens, the same in fine-tuning and in answering?

    <s> <user> Who bakes? <end> <assistant> Anna does. <end>
                                            ----------------   learned: what the model is to say

Roles and ends are ids that code puts in; only what stands between them is encoded from text.
A template that were filled in and then encoded as a whole would let a user type the roles.

Templates of published models are the same kind of thing with other words around the turns. Some
write roles in ordinary text: it is encoded together with the text beside it, as their own training
did, so that the ids are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from lit_llm.tokenizer.base import Tokenizer

Role = Literal["system", "user", "assistant"]
_NAMED = re.compile(r"\{(pad|bos|eos|mask|system|user|assistant|end)\}")


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


def question_from(turns: Any) -> tuple[Message, ...]:
    """The conversation that a record's "messages" hold, whose last turn is to be answered.

    Raises:
        ValueError: they are no list of turns, or the last one is not the user's.
    """
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict)
        and turn.get("role") in get_args(Role)
        and isinstance(turn.get("content"), str)
        for turn in turns
    ):
        roles = ", ".join(get_args(Role))
        raise ValueError(f'"messages" must be a list of {{"role": {roles}; "content": a text}}')
    if not turns or turns[-1]["role"] != "user":
        raise ValueError('the last of "messages" must be the user\'s: it is what is answered')
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)


@dataclass(frozen=True)
class Turn:
    """What stands around the words of one role."""

    before: str
    after: str


class _Piece(NamedTuple):
    """A control token, or text; and whether the model learns to say it."""

    part: int | str
    learned: bool


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """What stands around each turn; the defaults are our own template.

    `{bos}`, `{end}` and the other names of `SPECIAL` in braces stand for the tokenizer's control
    token of that name; what is spelled as one of its control tokens is that token; all else is
    text.
    """

    begin: str = "{bos}"
    """Opens the conversation."""

    system: Turn | None = Turn("{system}", "{end}")
    """Around a system prompt; None: the template has none."""

    user: Turn = Turn("{user}", "{end}")
    """Around what the user says."""

    assistant: Turn = Turn("{assistant}", "{end}")
    """Around an answer. It is learned with the first control token behind it, to learn to stop."""

    opening: str | None = None
    """What opens the answer that is asked for, where that is not what stands before others."""

    default_system: str | None = None
    """The system prompt of a conversation that has none; None: it goes without."""

    strip: bool = False
    """Whether white space around the words of each turn is dropped."""

    source: str | None = None
    """The Jinja text that a published model came with, which says the same."""

    @property
    def opens(self) -> str:
        """What opens the answer that is asked for."""
        return self.assistant.before if self.opening is None else self.opening

    def encode(
        self, tokenizer: Tokenizer, messages: Sequence[Message]
    ) -> tuple[list[int], list[bool]]:
        """A conversation as training sees it.

        Returns:
            ids, and for each whether to train on predicting it: what the assistant says and the
            end of its turn, so that it learns to stop.

        Raises:
            ValueError: there is no message, or a system prompt that the template has no place for,
                or the tokenizer lacks a control token.
        """
        return _encode(tokenizer, list(self._pieces(tokenizer, messages)))

    def prompt(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
        """The conversation so far and the assistant's role: the model goes on with its answer.

        Raises:
            ValueError: as `encode`.
        """
        header = [_Piece(part, False) for part in cut(tokenizer, self.opens)]
        return _encode(tokenizer, [*self._pieces(tokenizer, messages), *header])[0]

    def stop_ids(self, tokenizer: Tokenizer) -> set[int]:
        """Ids that end an answer.

        Raises:
            ValueError: the tokenizer lacks a control token of the template.
        """
        ends = [end for end in cut(tokenizer, self.assistant.after) if isinstance(end, int)]
        return {*ends[:1], *(id for name, id in tokenizer.special.items() if name == "eos")}

    def render(self, tokenizer: Tokenizer, messages: Sequence[Message], *, answer: bool) -> str:
        """The conversation as a text in which control tokens are spelled out, for comparisons.

        Args:
            tokenizer: spells the control tokens
            messages: the turns
            answer: append what opens the assistant's turn
        """
        parts = [piece.part for piece in self._pieces(tokenizer, messages)]
        header = cut(tokenizer, self.opens) if answer else []
        return spelled(tokenizer, [*parts, *header])

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ChatTemplate:
        """Inverse of `plain`.

        Raises:
            ValueError: it is no template.
        """
        try:
            turns = {role: Turn(**plain[role]) for role in get_args(Role) if plain[role]}
            return cls(**{**plain, **turns})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no chat template: {error!r}") from None

    def _pieces(self, tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterator[_Piece]:
        if not messages:
            raise ValueError("a conversation without messages: give at least one")
        yield from (_Piece(part, False) for part in cut(tokenizer, self.begin))
        if self.default_system is not None and messages[0].role != "system":
            yield from self._turn(tokenizer, "system", self.default_system)
        for message in messages:
            said = message.content.strip() if self.strip else message.content
            yield from self._turn(tokenizer, message.role, said)

    def _turn(self, tokenizer: Tokenizer, role: Role, said: str) -> Iterator[_Piece]:
        around: Turn | None = getattr(self, role)
        if around is None:
            raise ValueError(
                "this model's chat template has no place for a system prompt: "
                "leave it out, or say it in the first question"
            )
        learned = role == "assistant"
        yield from (_Piece(part, False) for part in cut(tokenizer, around.before))
        yield _Piece(said, learned)
        for part in cut(tokenizer, around.after):
            yield _Piece(part, learned)
            learned = learned and isinstance(part, str)  # up to the end, not what follows it


def cut(tokenizer: Tokenizer, literal: str) -> list[int | str]:
    """What a template itself says, as control tokens and the text between them.

    Raises:
        ValueError: the tokenizer lacks a control token that is named in braces.
    """
    parts: list[int | str] = []
    start = 0
    for match in _control_pattern(tokenizer).finditer(literal):
        parts.append(literal[start : match.start()])
        named = _NAMED.fullmatch(match[0])
        parts.append(_special(tokenizer, named[1]) if named else tokenizer.control[match[0]])
        start = match.end()
    return [part for part in [*parts, literal[start:]] if part != ""]


def _special(tokenizer: Tokenizer, name: str) -> int:
    if name not in tokenizer.special:
        raise ValueError(
            f"this tokenizer has no {name!r} token, which our own chat template writes: take one "
            "that has it\n(HuggingFace: special, add_missing), or import the model with "
            "--chat_template FILE"
        )
    return tokenizer.special[name]


def spelled(tokenizer: Tokenizer, parts: Iterable[int | str]) -> str:
    """Inverse of `cut`, with control tokens as published templates write them."""
    spelling = {id: text for text, id in tokenizer.control.items()}
    return "".join(part if isinstance(part, str) else spelling[part] for part in parts)


def _control_pattern(tokenizer: Tokenizer) -> re.Pattern[str]:
    longest_first = sorted(filter(None, tokenizer.control), key=len, reverse=True)
    return re.compile("|".join([_NAMED.pattern, *map(re.escape, longest_first)]))


def _encode(tokenizer: Tokenizer, pieces: Sequence[_Piece]) -> tuple[list[int], list[bool]]:
    """Ids of the pieces; what is text from one control token to the next is encoded as one."""
    ids: list[int] = []
    learned: list[bool] = []
    text: list[_Piece] = []

    def add_text() -> None:
        whole = "".join(str(piece.part) for piece in text)
        if whole:
            encode = tokenizer.encode_inside if ids else tokenizer.encode
            new = encode(whole)
            ids.extend(new)
            learned.extend(_flags(tokenizer, new, text))
        text.clear()

    for piece in pieces:
        if isinstance(piece.part, str):
            text.append(piece)
        else:
            add_text()
            ids.append(piece.part)
            learned.append(piece.learned)
    add_text()
    return ids, learned


def _flags(tokenizer: Tokenizer, ids: Sequence[int], text: Sequence[_Piece]) -> list[bool]:
    """Whether each token of a text is learned: if any of its bytes is."""
    if len({piece.learned for piece in text if piece.part}) <= 1:
        return [any(piece.learned for piece in text if piece.part)] * len(ids)
    of_byte = [p.learned for p in text for _ in str(p.part).encode()]
    sizes = [len(tokenizer.token_bytes(id)) for id in ids]
    # Some tokenizers put a space in front, which is none of the text's bytes. Where there are fewer
    # bytes than the text has (composed characters), what stands first is still in its place.
    place = min(0, len(of_byte) - sum(sizes))
    flags = []
    for size in sizes:
        flags.append(any(of_byte[max(place, 0) : max(place + size, 0)]))
        place += size
    return flags
