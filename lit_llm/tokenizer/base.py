"""What may the rest of lit-llm assume of any tokenizer?

To use one of your own, subclass `Tokenizer` in a file of yours and name it in YAML:

    data:
      init_args:
        tokenizer:
          class_path: my_project.MorseCode
          init_args: {speed: 20}
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_llm.tokenizer.chat import ChatTemplate

SPECIAL = ("pad", "bos", "eos", "mask", "system", "user", "assistant", "end")
"""Names of the control tokens: padding, begin and end of a document, the masked word of a masked
language model, the three roles of a chat, and the end of a turn."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "[CLS]", "<|endoftext|>", "<|im_start|>"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "[SEP]", "<|endoftext|>"),
    "mask": ("<mask>", "[MASK]", "<|mask|>"),
    "system": ("<system>", "<|system|>"),
    "user": ("<user>", "<|user|>"),
    "assistant": ("<assistant>", "<|assistant|>"),
    "end": ("<end>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>"),
}
"""How published tokenizers write them; the first is how our own does. The first hit counts."""

SPACE = "\u2581"
"""How SentencePiece, and whoever follows it, writes a space inside a piece."""


class Tokenizer(ABC):
    """Turns text into ids and ids into text.

    A tokenizer may be a recipe whose `train` is still to be called; until then only `trained`,
    `train` and `recipe` may be used. It must survive pickling: preparation hands it to processes.
    """

    chat_template: ChatTemplate = ChatTemplate()
    """How conversations are written; kept with the tokenizer, for training and for answering."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, control tokens included: every id is below it."""

    @property
    @abstractmethod
    def special(self) -> dict[str, int]:
        """Ids of the control tokens by name, of those in `SPECIAL` that this tokenizer has."""

    @property
    def control(self) -> dict[str, int]:
        """Ids of all control tokens by how they are written; `special` may be some of them."""
        return {f"<|{name}|>": id for name, id in self.special.items()}

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hex, of what determines the ids: equal fingerprints, equal ids."""

    @property
    def identity(self) -> str:
        """What determines the ids of texts and of conversations: equal ones, equal ids."""
        if self.chat_template == ChatTemplate():
            return self.fingerprint
        return f"{self.fingerprint} {json.dumps(self.chat_template.plain(), sort_keys=True)}"

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text; none of them is a control token, and none is added around it.

        Raises:
            ValueError: the text holds a lone surrogate, which is half a character.
        """

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes that a token stands for: perhaps half a character; b"" for control.

        Raises:
            ValueError: no token has this id.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write into `folder`, which exists, the files that `load` needs."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The tokenizer that was saved into `folder`."""

    def encode_inside(self, text: str) -> list[int]:
        """`encode` of a text that follows a control token, where that makes a difference."""
        return self.encode(text)

    def document(self, ids: Iterable[int]) -> list[int]:
        """What a text is to the model, given its ids: those behind the token that begins it.

        Raises:
            ValueError: the tokenizer has no such token.
        """
        return [self.special_id("bos"), *ids]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; override it where many at once are faster."""
        return [self.encode(text) for text in texts]

    def encode_arrays(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The same as lists or arrays, whatever is faster: for preparation."""
        return self.encode_batch(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; control tokens leave no trace, invalid UTF-8 becomes U+FFFD.

        Raises:
            ValueError: no token has one of these ids.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def special_id(self, name: str) -> int:
        """Id of the control token `name`.

        Raises:
            ValueError: this tokenizer has none; GPT-2's, for one, knows no chat roles.
        """
        if name in self.special:
            return self.special[name]
        known = ", ".join(sorted(self.special)) or "none"
        raise ValueError(
            f"this tokenizer has no {name!r} token (it has: {known}): "
            "choose one that has it, or name a token for it (HuggingFace: special, add_missing)"
        )

    def stop_ids(self, *, chat: bool) -> set[int]:
        """Ids that end what a model says: the end of a document, and of a turn.

        Args:
            chat: whether the model was trained on conversations

        Raises:
            ValueError: the tokenizer lacks a control token of its chat template.
        """
        ids = {self.special[name] for name in ("end", "eos") if name in self.special}
        return ids | self.chat_template.stop_ids(self) if chat else ids

    def unsaid_ids(self, rows: int, *, chat: bool) -> set[int]:
        """Ids that no answer has: control tokens that end nothing, and rows without a token.

        Args:
            rows: of the model's table, which of published models is longer than the tokenizer
            chat: as `stop_ids`
        """
        unsaid = {*self.special.values(), *range(self.vocab_size, rows)}
        return unsaid - self.stop_ids(chat=chat)

    @property
    def trained(self) -> bool:
        """Whether it can encode already."""
        return True

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """A copy trained on `texts`; same texts in the same order, same tokenizer.

        Raises:
            ValueError: it is trained already, or the texts do not suffice.
        """
        raise ValueError(f"{type(self).__name__} is trained already and learns nothing more")

    def recipe(self) -> dict[str, Any]:
        """What determines its ids, besides the texts it may yet be trained on; plain values."""
        return {"class_path": class_path(type(self)), "fingerprint": self.fingerprint}


def class_path(cls: type) -> str:
    """How YAML and tokenizer_class.json name a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def find_special(tokens: Mapping[str, int]) -> dict[str, int]:
    """Control tokens by name, recognised by how published tokenizers write them.

    Args:
        tokens: id of every token that can be a control token, by how it is written
    """
    found = {}
    for name in SPECIAL:
        hits = (tokens[spelling] for spelling in SPELLINGS[name] if spelling in tokens)
        if (hit := next(hits, None)) is not None:
            found[name] = hit
    return found


def require_utf8(text: str) -> None:
    """Refuse what no UTF-8 file can hold, before a library refuses it in words of its own.

    Raises:
        ValueError: the text holds a lone surrogate.
    """
    try:
        text.encode("utf-8")  # 1 GB/s, against some MB/s of encoding into tokens
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate, U+{ord(text[error.start]):04X}, at character "
            f"{error.start}: half a character that no UTF-8 can hold.\n"
            "Repair it: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None


def bytes_of(table: Sequence[bytes], id: int) -> bytes:
    """Entry of a tokenizer's table of token bytes; no negative index counts from its end.

    Raises:
        ValueError: the id is outside the table.
    """
    if 0 <= id < len(table):
        return table[id]
    raise ValueError(
        f"token id {int(id)} is outside the vocabulary (vocab_size={len(table)}): "
        "was it made by another tokenizer?"
    )
