"""How well does a tokenizer fit a text?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lit_llm.tokenizer.base import Tokenizer

EXAMPLES = 10


def report(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Count the tokens of some texts; plain values, ready for JSON.

    Returns:
        `bytes` of the texts in UTF-8, `tokens`, `bytes_per_token` (None without a token), and
        `unused_pieces`: `count` of the pieces that no text used, with `examples`, those with the
        lowest ids (in BPE the most frequent when it was trained). Pieces of one byte are not
        counted: they are there for texts still to come.

    Raises:
        ValueError: a text has a lone surrogate.
    """
    used: Counter[int] = Counter()
    n_bytes = 0
    for text in texts:
        used.update(tokenizer.encode(text))
        n_bytes += len(text.encode())
    pieces = ((id, tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size))
    unused = [piece for id, piece in pieces if len(piece) > 1 and id not in used]
    tokens = used.total()
    return {
        "bytes": n_bytes,
        "tokens": tokens,
        "bytes_per_token": n_bytes / tokens if tokens else None,
        "unused_pieces": {
            "count": len(unused),
            "examples": [piece.decode(errors="replace") for piece in unused[:EXAMPLES]],
        },
    }
