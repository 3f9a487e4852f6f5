"""Texts on which two tokenizers may disagree: drawn at random, the same in every run."""

from __future__ import annotations

import datetime
import random

from lit_llm.tokenizer.base import SPACE

_WORDS = (
    "the of and to in is that it he was for on are with as his they at be this from have or by "
    "Anna bakes bread; isn't couldn't WE'LL don't HTTP utf-8 self.assertEqual(x, y) def return "
    "lambda x: x**2 #include <stdio.h> for(i=0;i<10;i++){ } => != && || ... --- ___ === 3.14159 "
    "1234567890 007 1,000,000 2026-12-01 a@b.org https://example.org/?q=1&r=%20 $9.99 50% C++ "
    "straße façade naïve Ωmega привет мир 你好 世界 こんにちは "
    "שלום مرحبا नमस्ते 한국어 😀 👩‍👩‍👧 🏳️‍🌈 "
    "e\u0301 \u00e9 \ufb01 \u212b \u200b \u00a0 \u2028 \ufeff \u0007 \x7f"
).split(" ")
_BETWEEN = (" ", " ", " ", " ", "", "  ", "\n", "\n\n", "\t", "\r\n", "    ", "  \n ")


DAY = datetime.date(2024, 7, 26)  # which templates of Llama 3 name where there is no clock


def that_day(form: str) -> str:
    """What templates that say today's date are told; today's is not a part of the model."""
    return DAY.strftime(form)


def random_texts(n: int, seed: int = 0) -> list[str]:
    """Texts of up to 40 words, code, numbers, scripts and white space; none has U+2581."""
    draw = random.Random(seed)
    return [_text(draw) for _ in range(n)]


def typed_control(spellings: list[str], n: int, seed: int = 1) -> list[str]:
    """Texts in which somebody types control tokens."""
    draw = random.Random(seed)
    return [
        _text(draw) + draw.choice(spellings) + draw.choice(("", " ", "\n")) + _text(draw)
        for _ in range(n if spellings else 0)
    ]


def _text(draw: random.Random) -> str:
    parts = []
    for _ in range(draw.randint(0, 40)):
        word = draw.choice(_WORDS)
        if draw.random() < 0.1:
            word = "".join(chr(draw.choice((draw.randint(32, 0x2FF), draw.randint(32, 0xD7FF))))
                           for _ in range(draw.randint(1, 6)))  # fmt: skip
        parts += [word, draw.choice(_BETWEEN)]
    return "".join(parts).replace(SPACE, "")
