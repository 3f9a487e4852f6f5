"""From corpora to rows: which tokenizer they share, and how each of them is packed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lit_llm.data.assemble import Prepared
from lit_llm.data.corpus import Corpus
from lit_llm.data.loader import Rows
from lit_llm.data.packing import ConcatRows, FirstFitRows, TooLong
from lit_llm.data.shards import Shards
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


def open_rows(
    prepared: Prepared,
    seq_len: int,
    *,
    validation: bool,
    attend_across_documents: bool = False,
    too_long: TooLong = "drop",
) -> Rows:
    """Rows of one prepared corpus: conversations by first fit, text one after another.

    Raises:
        ValueError: there is no validation split, or too little text for a row.
    """
    folder = prepared.val if validation else prepared.train
    if folder is None:
        raise ValueError("data.val_fraction=0 keeps nothing to validate on: try 0.1")
    shards, pad_id = Shards(folder), prepared.tokenizer.special_id("pad")
    if shards.has_mask:
        return FirstFitRows(shards, seq_len, pad_id=pad_id, too_long=too_long)
    rows = ConcatRows(
        shards,
        seq_len,
        attend_across_documents=attend_across_documents,
        keep_tail=validation,
        pad_id=pad_id,
    )
    if not len(rows):
        raise ValueError(
            f"{shards.n_tokens} tokens in {folder} do not fill a row, which needs data.seq_len + 1 "
            f"= {seq_len + 1}: lower data.seq_len, or give more text"
        )
    return rows
