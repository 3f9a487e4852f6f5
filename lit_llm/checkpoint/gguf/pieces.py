"""What is a token to llama.cpp?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from lit_llm.checkpoint.gguf.file import Metadata

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens, by llama.cpp's and SentencePiece's numbers. User-defined ones are looked for in
a text before all others, control tokens only where it is asked for."""


class Piece(NamedTuple):
    """A token; its id is its place."""

    text: str
    type: int
    score: float = 0.0
    """Pieces of a higher one are merged first."""


@dataclass(frozen=True)
class Described:
    """A tokenizer as llama.cpp takes it, before its control tokens are named."""

    model: str
    """Which of llama.cpp's: "llama" or "gpt2"."""

    pre: str
    """How it cuts a text into words, by llama.cpp's name."""

    pieces: list[Piece]
    metadata: Metadata = field(default_factory=dict)
    """Further keys."""

    mistakable: list[str] = field(default_factory=list)
    """Spellings of control tokens and bytes that llama.cpp merges to those tokens even in text that
    it is told to take literally, for two other pieces make them up: "</s" and ">"."""

    lacks_bytes: bool = False
    """Some bytes have no token; both leave them out, and merge across the gap in another way."""

    composes: bool = False
    """The tokenizer composes characters (NFC) first; llama.cpp takes them as they come."""
