"""Why is our own tokenizer lossless, and why can no text type a control token?

SentencePiece (Kudo and Richardson, 2018, arXiv:1808.06226), with every setting off that changes
text, and with the 256 bytes as pieces, so that what the vocabulary lacks is spelled in UTF-8.
The one character that SentencePiece cannot keep is U+2581, its way to write a space: our code
spells that one itself.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import sentencepiece as spm

from lit_llm.tokenizer.base import (
    SPACE,
    SPECIAL,
    Tokenizer,
    bytes_of,
    class_path,
    find_special,
    require_utf8,
)
from lit_llm.tokenizer.trainer import MAX_CHARS, train_model

ModelType = Literal["bpe", "unigram", "char"]

_WORD_START = re.compile(f"(?<![ {SPACE}]) ")

FILE = "tokenizer.model"


class SentencePiece(Tokenizer):
    """A tokenizer learned from the corpus, or an existing tokenizer.model.

    Ids: 0 unknown (never used), 1 to 8 the control tokens in the order of `SPECIAL`, 9 to 264 the
    bytes, then the pieces that were learned. An existing model keeps its own ids and its own
    normalization, so it is as lossless as its makers wanted.

    Args:
        model: path of a tokenizer.model; null: train one on the corpus. The settings below are
            those of training: an existing model has its own
        vocab_size: ids in all, the 265 above included; with `char` the most that there may be
        model_type: bpe merges frequent pairs; unigram prunes to likely pieces (trains about 15
            times as long); char has one token per character
        split_digits: each digit is a token: sums are easier when numbers are written alike
        character_coverage: share of the corpus whose characters get pieces; rarer ones are bytes
        max_train_chars: characters of the corpus to learn from, evenly drawn from all of it

    Raises:
        ValueError: the file is no SentencePiece model, or a setting is impossible.
    """

    def __init__(
        self,
        model: str | None = None,
        vocab_size: int = 1024,
        model_type: ModelType = "bpe",
        split_digits: bool = True,
        character_coverage: float = 0.9995,
        max_train_chars: int = 100_000_000,
    ) -> None:
        self._settings: dict[str, Any] = {
            "vocab_size": vocab_size,
            "model_type": model_type,
            "split_digits": split_digits,
            "character_coverage": character_coverage,
            "max_train_chars": max_train_chars,
        }
        self._processor: spm.SentencePieceProcessor | None = None
        if model is not None:
            self._read(Path(model))
        else:
            self._check()

    @property
    def trained(self) -> bool:
        return self._processor is not None

    @property
    def vocab_size(self) -> int:
        return len(self._ready())

    @property
    def special(self) -> dict[str, int]:
        self._ready()
        return dict(self._special)

    @property
    def control(self) -> dict[str, int]:
        self._ready()
        return dict(self._control)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._ready().serialized_model_proto()).hexdigest()

    def recipe(self) -> dict[str, Any]:
        if self.trained:
            return super().recipe()
        return {
            "class_path": class_path(type(self)),
            "sentencepiece": spm.__version__,  # another trainer may learn other pieces
            **self._settings,
        }

    def encode(self, text: str) -> list[int]:
        require_utf8(text)
        processor = self._ready()
        if not self._cuttable:
            return processor.encode(text)
        ids: list[int] = []
        for index, part in enumerate(text.split(SPACE)):
            if index:
                ids += self._space_mark
            for portion in processor.encode(list(_portions(part)), num_threads=1):
                ids += portion
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in one thread: preparation runs a process on every core."""
        for text in texts:
            require_utf8(text)
        # One call with many short texts takes 0.6 of the time of many calls.
        plain = [not self._cuttable or _is_plain(text) for text in texts]
        batch = [text for text, is_plain in zip(texts, plain, strict=True) if is_plain]
        encoded = iter(self._ready().encode(batch, num_threads=1))
        return [
            next(encoded) if is_plain else self.encode(text)
            for text, is_plain in zip(texts, plain, strict=True)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        text = super().decode(ids)
        return text.removeprefix(" ") if self._adds_space else text

    def token_bytes(self, id: int) -> bytes:
        self._ready()
        return bytes_of(self._bytes, id)

    def save(self, folder: Path) -> None:
        (folder / FILE).write_bytes(self._ready().serialized_model_proto())

    @classmethod
    def load(cls, folder: Path) -> SentencePiece:
        return cls(model=str(folder / FILE))

    def train(self, texts: Iterable[str]) -> SentencePiece:
        """A copy trained on `texts`, a pure function of them, of the settings and of the version.

        With bpe and char the arithmetic is in integers, the same everywhere. With unigram it is
        in floating point: the same on every machine of one kind, whatever its number of cores.
        """
        if self.trained:
            raise ValueError("this tokenizer is trained already: leave out model to train another")
        trained = copy.copy(self)
        trained._use(train_model(texts, **self._settings))
        return trained

    def _check(self) -> None:
        size, kind = self._settings["vocab_size"], self._settings["model_type"]
        smallest = 1 + len(SPECIAL) + 256 + 1
        if size < smallest:
            raise ValueError(
                f"vocab_size={size} has no room for {len(SPECIAL)} control tokens and 256 bytes: "
                f"give {smallest} or more"
            )
        if kind not in get_args(ModelType):
            raise ValueError(f"model_type={kind!r}: choose one of {', '.join(get_args(ModelType))}")
        if (most := self._settings["max_train_chars"]) < MAX_CHARS:
            raise ValueError(
                f"max_train_chars={most} is less than one portion of text: give {MAX_CHARS} or more"
            )

    def _read(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError(f"no tokenizer model at {path}: give the path of a {FILE}")
        try:
            self._use(path.read_bytes())
        except RuntimeError as error:
            raise ValueError(f"{path} is no SentencePiece model: {error}") from None

    def _use(self, model: bytes) -> None:
        processor = spm.SentencePieceProcessor(model_proto=model)
        pieces = [processor.id_to_piece(id) for id in range(len(processor))]
        is_control = [processor.is_control(id) for id in range(len(processor))]
        is_byte = [processor.is_byte(id) for id in range(len(processor))]
        unknown = b"" if any(is_byte) else "\ufffd".encode()  # with bytes nothing is unknown

        def spell(id: int) -> bytes:
            if is_control[id]:
                return b""
            if is_byte[id]:
                return bytes([int(pieces[id][3:5], 16)])  # "<0x0A>"
            return unknown if processor.is_unknown(id) else pieces[id].replace(SPACE, " ").encode()

        self._processor = processor
        self._bytes = [spell(id) for id in range(len(pieces))]
        self._control = {p: id for id, p in enumerate(pieces) if is_control[id]}
        self._special = find_special(self._control)
        self._space_mark = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]

        # Foreign models may put a space in front of every text, or normalize it: then a text
        # encoded in portions is not the text encoded as a whole.
        def bare(text: str) -> bytes:
            return b"".join(self._bytes[id] for id in processor.encode(text))

        self._adds_space = bare("a").startswith(b" ")
        self._cuttable = (
            any(is_byte)
            and all(bare(probe) == probe.encode() for probe in (" a  b ", "\ufb01\u212b"))  # NFKC
            and not any(SPACE in piece.lstrip(SPACE) for piece in pieces)
        )

    def _ready(self) -> spm.SentencePieceProcessor:
        if self._processor is None:
            raise ValueError(
                "this tokenizer is still to be trained: run python cli.py prepare, "
                "or give its `model` the path of a trained one"
            )
        return self._processor


def _is_plain(text: str) -> bool:
    return len(text) <= MAX_CHARS and SPACE not in text


def _portions(text: str) -> Iterator[str]:
    """Cut in front of words, which no piece straddles, so that the ids do not change.

    One call with 19 MB takes 20 s here, in portions 5 s.
    """
    start = 0
    while word := _WORD_START.search(text, start + MAX_CHARS):
        yield text[start : word.start()]
        start = word.start()
    yield text[start:]
