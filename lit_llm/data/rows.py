"""How a prepared corpus is packed into rows."""

from __future__ import annotations

from lit_llm.data.assemble import Prepared
from lit_llm.data.loader import Rows
from lit_llm.data.packing import ConcatRows, FirstFitRows
from lit_llm.data.settings import TooLong
from lit_llm.data.shards import Shards


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
