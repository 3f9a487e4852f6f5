"""How does llama.cpp come to the same tokens: which of its tokenizers, which control tokens?

It finds control tokens by how they are written, in prompts too, unless it is told not to
(`parse_special: false`). Ours never does: what a user types is no control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_llm.checkpoint.gguf import byte_level, sentencepiece
from lit_llm.checkpoint.gguf.file import Metadata
from lit_llm.checkpoint.gguf.pieces import UNUSED, Described, Piece
from lit_llm.tokenizer.base import Tokenizer, class_path
from lit_llm.tokenizer.huggingface import HuggingFace
from lit_llm.tokenizer.sentencepiece import SentencePiece

_IDS = {"bos": "bos", "eos": "eos", "end": "eot", "pad": "padding", "mask": "mask"}
"""Names of control tokens: ours -> llama.cpp's."""


class Vocabulary(NamedTuple):
    """A tokenizer as llama.cpp takes it."""

    metadata: Metadata
    """The keys `tokenizer.ggml.*`."""

    described: Described
    """What llama.cpp does in another way."""


def vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """Describe a tokenizer to llama.cpp.

    Args:
        tokenizer: of exactly one of our classes; a subclass may encode in another way
        size: rows of the model's embedding; ids that the tokenizer does not have are marked unused

    Raises:
        ValueError: llama.cpp would not come to the same tokens.
    """
    if tokenizer.vocab_size > size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {size}: "
            "export a checkpoint whose tokenizer is the model's own"
        )
    # No isinstance: a subclass may encode in another way.
    if type(tokenizer) is SentencePiece:
        described = sentencepiece.describe(tokenizer)
    elif type(tokenizer) is HuggingFace:
        described = byte_level.describe(tokenizer)
    else:
        raise ValueError(
            f"{class_path(type(tokenizer))} is no tokenizer of llama.cpp's: "
            "it has SentencePiece's and byte-level BPE"
        )
    pieces = described.pieces
    pieces += [Piece(f"[UNUSED_{id}]", UNUSED) for id in range(len(pieces), size)]
    _refuse_twins(pieces)
    metadata = {
        "tokenizer.ggml.model": described.model,
        "tokenizer.ggml.pre": described.pre,
        "tokenizer.ggml.tokens": [piece.text for piece in pieces],
        "tokenizer.ggml.token_type": [piece.type for piece in pieces],
        **described.metadata,
        **_control(tokenizer),
    }
    if described.model == "llama":
        metadata["tokenizer.ggml.scores"] = [piece.score for piece in pieces]
    return Vocabulary(metadata, described)


def _refuse_twins(pieces: Sequence[Piece]) -> None:
    first: dict[str, int] = {}
    for id, piece in enumerate(pieces):
        if (twin := first.setdefault(piece.text, id)) != id:
            raise ValueError(
                f"tokens {twin} and {id} are both written {piece.text!r}, llama.cpp wants each "
                "once: take a tokenizer without twins"
            )


def _control(tokenizer: Tokenizer) -> Metadata:
    special = tokenizer.special
    ids = {theirs: special[ours] for ours, theirs in _IDS.items() if ours in special}
    if "eos" not in ids:
        if "eot" not in ids:
            raise ValueError(
                "the tokenizer has no token that ends a text, llama.cpp would take a wrong one: "
                "name one (HuggingFace: special)"
            )
        ids["eos"] = ids["eot"]
    return {
        **{f"tokenizer.ggml.{name}_token_id": id for name, id in ids.items()},
        "tokenizer.ggml.add_bos_token": "bos" in ids and bool(tokenizer.document([])),
        "tokenizer.ggml.add_eos_token": False,
    }
