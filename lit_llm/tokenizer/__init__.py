"""Text to token ids and back: what tokens are, how they are learned, and how a chat is written.

Two rules hold for every tokenizer here. Text comes back as it went in: `decode(encode(x)) == x`.
And no text, whatever a user types, becomes a control token (begin, end, a chat role): those are
put in as ids, by code.
"""

from lit_llm.tokenizer.base import SPECIAL, Tokenizer
from lit_llm.tokenizer.chat import ChatTemplate, Message
from lit_llm.tokenizer.huggingface import HuggingFace
from lit_llm.tokenizer.load import load_tokenizer, save_tokenizer
from lit_llm.tokenizer.report import report
from lit_llm.tokenizer.sentencepiece import SentencePiece

__all__ = [
    "SPECIAL",
    "ChatTemplate",
    "HuggingFace",
    "Message",
    "SentencePiece",
    "Tokenizer",
    "load_tokenizer",
    "report",
    "save_tokenizer",
]
