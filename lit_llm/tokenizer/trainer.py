"""How is a SentencePiece model trained on any texts, the same bytes each time?

The trainer takes "sentences" and prints a log. It drops, without a word, those over a length and
those that hold U+2585, its own mark for unknown characters, and keeps all of the others in memory.
So texts are cut into sentences that it takes, of a large corpus it gets a sample, its log is off,
and its errors become ours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

import sentencepiece as spm

from lit_llm.tokenizer.base import SPECIAL, SPELLINGS, require_utf8
from lit_llm.tokenizer.sample import sample

MAX_CHARS = 4096
"""Longest sentence in characters. The trainer counts positions in a word in 16 bits, and in a
script without spaces a sentence is one word."""

# U+2581 is SentencePiece's way to write a space, U+2585 its mark for unknown characters, NUL the
# end of a C string. None can be part of a piece, so texts are cut there.
_NEVER_IN_A_PIECE = re.compile("[\0\u2581\u2585]")


def train_model(texts: Iterable[str], *, max_train_chars: int, **settings: Any) -> bytes:
    """The bytes of a SentencePiece model in which every byte and every control token has an id.

    Pieces may hold line ends: on 4.7 MB of Python, 3.49 bytes per token with a vocabulary of 4096,
    against 3.26 with the line end as a piece of its own.

    Args:
        texts: of any length
        max_train_chars: characters to learn from, evenly drawn from all texts
        settings: vocab_size, model_type, split_digits, character_coverage, as SentencePiece's own

    Raises:
        ValueError: there is no text, or it does not suffice for vocab_size, or it has a lone
            surrogate.
    """
    training_text = sample((part for text in texts for part in sentences(text)), max_train_chars)
    if not training_text:
        raise ValueError("no text to train the tokenizer on: the corpus is empty")
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(training_text),
            model_writer=model,
            **settings,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            byte_fallback=True,
            allow_whitespace_only_pieces=True,  # a third fewer tokens on code
            unk_id=0,
            pad_id=SPECIAL.index("pad") + 1,
            bos_id=SPECIAL.index("bos") + 1,
            eos_id=SPECIAL.index("eos") + 1,
            pad_piece=SPELLINGS["pad"][0],
            control_symbols=[SPELLINGS[name][0] for name in SPECIAL[3:]],  # users cannot type them
            max_sentence_length=4 * MAX_CHARS,  # in bytes; UTF-8 takes at most 4 for a character
            num_threads=16,  # is written into the model, and in unigram decides the order of sums
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _in_plain_words(error, settings) from None
    return model.getvalue()


def sentences(text: str) -> Iterator[str]:
    """Cut a text into sentences of at most `MAX_CHARS` characters, at line ends where possible.

    Nothing is lost but NUL, U+2581 and U+2585, which are never part of a piece.
    """
    require_utf8(text)
    for part in _NEVER_IN_A_PIECE.split(text):
        start = 0
        while len(part) - start > MAX_CHARS:
            stop = _cut(part, start, start + MAX_CHARS)
            yield part[start:stop]
            start = stop
        if start < len(part):
            yield part[start:]


def _cut(text: str, start: int, limit: int) -> int:
    """Where to cut: in front of the last line end, else of the last space, else at the limit."""
    for border in "\n", " ":
        if (stop := text.rfind(border, start + 1, limit)) > 0:
            return stop
    return limit


def _in_plain_words(error: RuntimeError, settings: dict[str, Any]) -> ValueError:
    size, message = settings["vocab_size"], str(error)
    if most := re.search(r"too high .*<= (\d+)", message):
        return ValueError(
            f"vocab_size={size} is too large for this text, which yields at most {most[1]} pieces: "
            f"give vocab_size={most[1]} or less, or more text"
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return ValueError(
            f"vocab_size={size} is too small for the characters of this text: "
            f"give vocab_size={least[1]} or more, or a lower character_coverage"
        )
    return ValueError(f"SentencePiece could not train with {settings}: {message}")
