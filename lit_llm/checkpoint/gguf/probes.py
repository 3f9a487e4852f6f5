"""What are llama.cpp and we asked, to compare the answers? The same each time."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Collection

from lit_llm.model.config import GPTConfig
from lit_llm.tokenizer.base import SPACE, SPELLINGS, Tokenizer

_SPACES = (" ", " ", "  ", "    ", "\n", "\n\n", "\t", "\r\n", " \n", "\u00a0", "\u3000")
_WORDS = (
    "'s",
    "'LL",
    "don't",
    "x=1;",
    "...",
    "?!",
    "<0x0A>",
    "\u00e9",
    "e\u0301",
    "\u200d",
    "\ufb01",
)
_SCRIPTS = (
    (0x21, 0x7F),  # ASCII
    (0xA1, 0x180),  # Latin
    (0x391, 0x3CA),  # Greek
    (0x410, 0x450),  # Cyrillic
    (0x5D0, 0x5EB),  # Hebrew
    (0x620, 0x64B),  # Arabic
    (0x905, 0x93A),  # Devanagari
    (0xE01, 0xE31),  # Thai
    (0x2190, 0x2300),  # arrows, mathematics
    (0x3041, 0x3097),  # Hiragana
    (0x4E00, 0x9FA6),  # Han
    (0xAC00, 0xD7A4),  # Hangul
    (0x1F600, 0x1F650),  # emoji
)
_LOOK_ALIKES = tuple(spelling for spellings in SPELLINGS.values() for spelling in spellings)

MOST_TOKENS = 512
"""Of a prompt: what shows up at all shows up here, and a large model reads it in seconds."""

STEPS = 24
"""Tokens that follow each prompt."""


def texts(
    tokenizer: Tokenizer, count: int, *, seed: int, without: Collection[str] = (), composed: bool
) -> list[str]:
    """Random texts: pieces of the vocabulary, digits, many scripts, look-alikes of control tokens.

    Those that the tokenizer itself does not keep, for want of bytes, are left out.

    Args:
        tokenizer: whose pieces to take
        count: how many
        seed: another one draws other texts
        without: none of the texts holds one of these; U+2581 is in none
        composed: compose characters (NFC)
    """
    draw = random.Random(seed)
    kinds = (_piece, _piece, _character, _space, _word)
    found: list[str] = []
    while len(found) < count:
        parts = [draw.choice(kinds)(draw, tokenizer) for _ in range(draw.randint(1, 30))]
        text = "".join(parts).replace(SPACE, "")
        if composed:
            text = unicodedata.normalize("NFC", text)
        kept = tokenizer.decode(tokenizer.encode(text)) == text
        if text and kept and not any(avoided in text for avoided in without):
            found.append(text)
    return found


def _piece(draw: random.Random, tokenizer: Tokenizer) -> str:
    return tokenizer.token_bytes(draw.randrange(tokenizer.vocab_size)).decode(errors="ignore")


def _character(draw: random.Random, _: Tokenizer) -> str:
    return chr(draw.randrange(*draw.choice(_SCRIPTS)))


def _space(draw: random.Random, _: Tokenizer) -> str:
    return draw.choice(_SPACES)


def _word(draw: random.Random, _: Tokenizer) -> str:
    number = str(draw.randrange(10 ** draw.randint(1, 7)))
    return draw.choice((number, draw.choice(_WORDS), draw.choice(_LOOK_ALIKES)))


def prompts(config: GPTConfig, tokenizer: Tokenizer) -> list[list[int]]:
    """Prompts of random tokens, short and long: bos, and then no other control token."""
    room = min(MOST_TOKENS, config.max_seq_len - steps(config))
    draw = random.Random(0)
    plain = sorted(set(range(config.vocab_size)) - set(tokenizer.special.values()))
    begin = [tokenizer.special["bos"]] if "bos" in tokenizer.special else []
    return [
        (begin + draw.choices(plain, k=length))[:length]
        for length in sorted({min(room, 5), -(-room // 2), room})
    ]


def steps(config: GPTConfig) -> int:
    """Tokens that follow a prompt: half of a context that is short."""
    return min(STEPS, config.max_seq_len // 2)


def letter(tokenizer: Tokenizer) -> int:
    """Id of a token that is a letter, or more of a word."""
    ids = range(tokenizer.vocab_size)
    return next(id for id in ids if tokenizer.token_bytes(id).isalpha())  # of ASCII
