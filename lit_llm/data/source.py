"""What rows are made of: corpora, a tokenizer and how they are prepared.

Needs neither PyTorch nor Lightning, which take longer to import than a small corpus to prepare.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from lit_llm.data.assemble import Prepared
from lit_llm.data.corpus import Corpus
from lit_llm.data.parts import Part, given_tokenizer
from lit_llm.data.prepare import prepare_all
from lit_llm.data.settings import OnBad, Preparation
from lit_llm.tokenizer import Tokenizer

NOTICEABLE_SECONDS = 1.0


class Source:
    """The arguments of `TextData` that decide about preparation; they are explained there."""

    def __init__(
        self,
        corpus: Corpus | dict[str, Part],
        tokenizer: Tokenizer | None = None,
        *,
        val_fraction: float,
        val_split: Literal["documents", "tails"],
        split_seed: int,
        deduplicate: bool,
        tokenizer_bytes: int,
        on_bad: Literal["skip", "error"],
        max_bad_share: float,
        prepare_workers: int | None,
        cache_dir: str,
        verify: bool,
        tokenizer_from: str | None,
    ) -> None:
        self.parts = corpus if isinstance(corpus, dict) else {"corpus": Part(corpus)}
        if not self.parts:
            raise ValueError("data.corpus names no corpus: give one, or a name for each of several")
        self.verified = not verify
        self._given = given_tokenizer(tokenizer, tokenizer_from)
        self.preparation = Preparation(
            val_fraction=val_fraction,
            val_split=val_split,
            split_seed=split_seed,
            deduplicate=deduplicate,
            tokenizer_bytes=tokenizer_bytes,
        )
        self._cache_dir = Path(cache_dir)
        self._bad = OnBad(on_bad=on_bad, max_bad_share=max_bad_share)
        self._workers = prepare_workers
        self._prepared: dict[str, Prepared] = {}

    def prepared(self, *, progress: bool) -> dict[str, Prepared]:
        """The prepared corpora by name; made when first asked for, by one process of several.

        Args:
            progress: draw a bar
        """
        if not self._prepared:
            found = prepare_all(
                [part.corpus for part in self.parts.values()],
                self._given,
                self.preparation,
                cache_dir=self._cache_dir,
                bad=self._bad,
                workers=self._workers,
                progress=progress,
            )
            self._prepared = dict(zip(self.parts, found, strict=True))
        return self._prepared

    def verify(self) -> str:
        """Compare what was prepared with its SHA-256, once.

        Returns:
            What to print; empty if it took no time.

        Raises:
            ValueError: a file is not what was written; names it.
        """
        if self.verified:
            return ""
        start = time.monotonic()
        try:
            size = sum(one.verify() for one in self._prepared.values())
        except OSError as error:  # the disk cannot read it
            raise ValueError(f"prepared data: {error}") from None
        self.verified = True
        seconds = time.monotonic() - start
        if seconds < NOTICEABLE_SECONDS:
            return ""
        return f"verified {size / 1e9:.1f} GB of tokens in {seconds:.0f} s"
