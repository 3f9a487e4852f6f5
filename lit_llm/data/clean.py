"""What makes a record unusable, and what makes two documents the same."""

from __future__ import annotations

import hashlib
import json

from lit_llm.data.corpus.base import Bad, Conversation, Text
from lit_llm.data.corpus.lines import MAX_RECORD_BYTES, too_large


def check(record: Text | Conversation | Bad) -> Text | Conversation | Bad:
    """Return the record itself, or why it cannot be used.

    NUL counts as bad although the tokenizer could encode it: in practice it means UTF-16 or a
    binary file, and some thousand tokens of noise.
    """
    if isinstance(record, Bad):
        return record
    if isinstance(record, Text):
        reason = _fault(record.text)
    else:
        faults = ((message.role, _fault(message.content)) for message in record.messages)
        reason = next((f"{role}: {fault}" for role, fault in faults if fault), None)
        reason = reason or _order(record)
    return Bad(record.source, reason) if reason else record


def document_hash(record: Text | Conversation) -> bytes:
    """128 bits that are equal for equal documents, wherever they stand, and for no others.

    At 10^9 documents the chance of one false duplicate is 10^-21.
    """
    if isinstance(record, Text):
        return hashlib.blake2b(record.text.encode(), digest_size=16, person=b"text").digest()
    turns = json.dumps([[message.role, message.content] for message in record.messages])
    return hashlib.blake2b(turns.encode(), digest_size=16, person=b"conversation").digest()


def texts_of(record: Text | Conversation) -> list[str]:
    """Return the pieces of natural text in a record."""
    if isinstance(record, Text):
        return [record.text]
    return [message.content for message in record.messages]


def byte_count(record: Text | Conversation) -> int:
    """UTF-8 bytes of a record's text."""
    return sum(len(text.encode()) for text in texts_of(record))


def _fault(text: str) -> str | None:
    if not text or text.isspace():
        return "empty text"
    if "\0" in text:
        return "NUL character (a binary file, or UTF-16?)"
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}"
    if size > MAX_RECORD_BYTES:
        return too_large(size=size)
    return None


def _order(record: Conversation) -> str | None:
    """Roles: system or not, then user and assistant in turns, the assistant last."""
    roles = [message.role for message in record.messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns and len(turns) % 2 == 0 and turns == ["user", "assistant"] * (len(turns) // 2):
        return None
    return f"roles are {', '.join(roles) or 'none'}; needed: user, assistant, user, assistant, ..."
