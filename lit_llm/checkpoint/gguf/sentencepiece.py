"""Does llama.cpp encode as a SentencePiece model does, and how is it told to?

Its "llama" tokenizer merges pairs in the order of the pieces' scores, over the whole text, and
spells in bytes what the vocabulary lacks: SentencePiece's bpe with byte_fallback, where nothing
normalizes the text. It cannot normalize, and knows no unigram with bytes.

U+2581 is the one character that it reads in another way: as the space that SentencePiece writes so.
Ours spells it in its three bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lit_llm.checkpoint.gguf.file import Metadata
from lit_llm.checkpoint.gguf.pieces import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Described,
    Piece,
)
from lit_llm.tokenizer.base import SPACE
from lit_llm.tokenizer.sentencepiece import FILE, SentencePiece

_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}  # TrainerSpec.ModelType


class Model(NamedTuple):
    """What a tokenizer.model says, as far as llama.cpp must know."""

    pieces: list[Piece]
    kind: str
    adds_space: bool
    normalizes: bool
    spaces_are_pieces: bool
    """A space is written as U+2581, in front of a word."""


def describe(tokenizer: SentencePiece) -> Described:
    """A SentencePiece model as llama.cpp's "llama".

    Raises:
        ValueError: llama.cpp would come to other tokens.
    """
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        model = read_model((Path(folder) / FILE).read_bytes())
    _refuse_others(model)
    pieces = [_as_text(piece) for piece in model.pieces]
    metadata: Metadata = {"tokenizer.ggml.add_space_prefix": model.adds_space}
    unknown = [id for id, piece in enumerate(pieces) if piece.type == UNKNOWN]
    if unknown:
        metadata["tokenizer.ggml.unknown_token_id"] = unknown[0]
    return Described("llama", "default", pieces, metadata, _mistakable(pieces))


def _as_text(piece: Piece) -> Piece:
    """User-defined pieces are looked for before spaces become U+2581."""
    if piece.type != USER_DEFINED:
        return piece
    return piece._replace(text=piece.text.replace(SPACE, " "))


def _mistakable(pieces: Sequence[Piece]) -> list[str]:
    """llama.cpp merges two pieces into whatever token is written as both."""
    known = {piece.text for piece in pieces if piece.type == NORMAL}

    def can_be_merged(text: str) -> bool:
        return any(text[:n] in known and text[n:] in known for n in range(1, len(text)))

    others = (UNKNOWN, CONTROL, BYTE)
    return [piece.text for piece in pieces if piece.type in others and can_be_merged(piece.text)]


def _refuse_others(model: Model) -> None:
    if model.kind not in ("bpe", "char"):
        raise ValueError(
            f"model_type={model.kind} of the tokenizer: llama.cpp's has no bytes for what its "
            "vocabulary lacks and would come to other tokens; it encodes bpe and char alike"
        )
    if model.normalizes:
        raise ValueError(
            "the tokenizer normalizes text, which llama.cpp does not: take one with "
            "normalization_rule_name=identity and remove_extra_whitespaces=false"
        )
    if not model.spaces_are_pieces:
        raise ValueError(
            "the tokenizer does not write a space as U+2581 before a word, as llama.cpp does: "
            "take one that does"
        )
    if sum(piece.type == BYTE for piece in model.pieces) != 256:
        raise ValueError(
            "the tokenizer has not all of the 256 bytes, with which llama.cpp spells what the "
            "vocabulary lacks: take one with byte_fallback"
        )
    if model.adds_space and any(piece.type == USER_DEFINED for piece in model.pieces):
        raise ValueError(
            "the tokenizer puts a space in front of a text and has user-defined pieces, behind "
            "which llama.cpp would put another: take one without either"
        )
    if any(piece.type == UNUSED for piece in model.pieces):
        raise ValueError(
            "the tokenizer has unused pieces, which llama.cpp would use: take one without"
        )


# -- the file's format ---------------------------------------------------------------------------
#
# Protocol buffers (https://protobuf.dev/programming-guides/encoding), read by hand: their package
# would be one more to install, and sentencepiece itself does not tell these settings.
# Numbers of fields: sentencepiece_model.proto.


def read_model(content: bytes) -> Model:
    """Read a tokenizer.model.

    Raises:
        ValueError: it is none.
    """
    pieces: list[Piece] = []
    kind, adds_space, extra_spaces, escapes, suffix, charsmap = 1, True, True, True, False, b""
    for number, value in _fields(content):
        if number == 1:
            pieces.append(_piece(value))
        elif number == 2:
            trainer = dict(_fields(value))
            kind, suffix = trainer.get(3, 1), bool(trainer.get(24, 0))
        elif number == 3:
            normalizer = dict(_fields(value))
            charsmap = normalizer.get(2, b"")
            adds_space, extra_spaces, escapes = (bool(normalizer.get(n, 1)) for n in (3, 4, 5))
    return Model(
        pieces,
        kind=_KINDS[kind],
        adds_space=adds_space,
        normalizes=bool(charsmap) or extra_spaces,
        spaces_are_pieces=escapes and not suffix,
    )


def _piece(message: bytes) -> Piece:
    fields = dict(_fields(message))
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    return Piece(fields[1].decode(), fields.get(3, NORMAL), score)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: an int where its length varies, else bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"the tokenizer's model is damaged at byte {at}: take another copy")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
