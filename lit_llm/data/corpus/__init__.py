"""Where text comes from: one file per kind of source, all of them usable from YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lit_llm.data.corpus.base import Bad, Conversation, Corpus, Text, Unit
from lit_llm.data.corpus.conversations import Conversations
from lit_llm.data.corpus.huggingface import HuggingFaceDataset
from lit_llm.data.corpus.jsonl import Jsonl
from lit_llm.data.corpus.parquet import Parquet
from lit_llm.data.corpus.stdlib import PythonStdlib
from lit_llm.data.corpus.text import TextFiles

if TYPE_CHECKING:
    from lit_llm.data.village.corpus import Village, VillageChat, VillageQuiz

__all__ = [
    "Bad",
    "Conversation",
    "Conversations",
    "Corpus",
    "HuggingFaceDataset",
    "Jsonl",
    "Parquet",
    "PythonStdlib",
    "Text",
    "TextFiles",
    "Unit",
    "Village",
    "VillageChat",
    "VillageQuiz",
]


def __getattr__(name: str) -> Any:
    """Import the village when it is asked for: its module needs `base`, so this one, first."""
    if name in ("Village", "VillageChat", "VillageQuiz"):
        from lit_llm.data.village import corpus

        return getattr(corpus, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
