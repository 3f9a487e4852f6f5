"""The corpora of a run, each with its weight, and the tokenizer that they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lit_llm.data.corpus import Corpus
from lit_llm.tokenizer import Tokenizer, load_tokenizer


@dataclass
class Part:
    """One corpus of several.

    Args:
        corpus: where its text comes from
        weight: its share of the samples, relative to the other weights
    """

    corpus: Corpus
    weight: float = 1.0


def given_tokenizer(tokenizer: Tokenizer | None, folder: str | None) -> Tokenizer:
    """The tokenizer, or recipe for one, that the user named.

    Args:
        tokenizer: from the configuration
        folder: a checkpoint whose tokenizer is used

    Raises:
        ValueError: neither is given, or both and they differ.
    """
    if folder is None:
        if tokenizer is None:
            raise ValueError(
                "there is no tokenizer: give data.tokenizer, such as "
                "lit_llm.tokenizer.SentencePiece,\nor start from a checkpoint, which has one"
            )
        return tokenizer
    loaded = load_tokenizer(Path(folder))
    if tokenizer is not None and not (
        tokenizer.trained and tokenizer.fingerprint == loaded.fingerprint
    ):
        differs = "is another one" if tokenizer.trained else "would be trained anew"
        raise ValueError(
            f"the weights of {folder} belong to its tokenizer, and data.tokenizer {differs}:\n"
            "set data.tokenizer to null"
        )
    return loaded
