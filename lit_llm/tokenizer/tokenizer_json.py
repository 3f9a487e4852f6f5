"""What does a Hugging Face tokenizer.json say of its tokens: their ids and their bytes?

Two kinds keep text: byte-level BPE, whose tokens write each byte as one printable character, and
SentencePiece-like ones, whose tokens write a space as U+2581 and, with byte fallback, a byte as
"<0x0A>". BERT's WordPiece forgets where spaces were: it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from lit_llm.tokenizer.base import SPACE

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_characters() -> dict[int, str]:
    """GPT-2's character for each byte: its own where that is printable, else one from U+0100 on.

    https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    shifted = {byte: chr(0x100 + index) for index, byte in enumerate(others)}
    return {byte: shifted.get(byte, chr(byte)) for byte in range(256)}


_CHARACTER = byte_characters()
_BYTE_OF = {character: byte for byte, character in _CHARACTER.items()}


class TokenizerJson:
    """The content of a tokenizer.json, with what makes ids depend on more than the text taken out.

    Raises:
        ValueError: there is no such file, or it is of a kind that does not keep text.
    """

    def __init__(self, path: Path) -> None:
        self.content = _read(path)
        model = self.content["model"]
        self.content |= {"truncation": None, "padding": None}
        if model.get("dropout") is not None:
            model["dropout"] = None  # BPE dropout encodes at random
        vocab = model["vocab"]
        pieces = vocab if isinstance(vocab, dict) else {p: id for id, (p, _) in enumerate(vocab)}
        self.ids: dict[str, int] = pieces | {t["content"]: t["id"] for t in self.added}
        self.unknown: int | None = model.get("unk_id", self.ids.get(model.get("unk_token")))

        decoders = list(_leaves(self.content.get("decoder")))
        kinds = {decoder["type"] for decoder in decoders}
        self._byte_fallback = "ByteFallback" in kinds
        self._byte_level = "ByteLevel" in kinds
        if not self._byte_level and not any(map(_writes_spaces, decoders)):
            raise ValueError(
                f"{path} is a {model.get('type')} tokenizer that does not keep text as it is: "
                "give a byte-level BPE or a SentencePiece-like one"
            )
        self.adds_space = any(map(_strips_first_space, decoders))

    @property
    def added(self) -> list[dict[str, Any]]:
        """Tokens that are found before the model sees the text, unless they are special."""
        return self.content["added_tokens"]

    def append(self, token: str) -> int:
        """Add a control token behind all others; returns its id."""
        self.ids[token] = max(self.ids.values()) + 1
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        self.added.append({"id": self.ids[token], "content": token, **flags, "special": True})
        return self.ids[token]

    def mark_special(self, ids: Container[int]) -> None:
        """Make these added tokens ones that are not looked for in text."""
        for token in self.added:
            token["special"] = token["special"] or token["id"] in ids

    def bytes_of(self, token: str) -> bytes:
        """What a token that is no control token stands for."""
        if self.ids[token] == self.unknown:
            return "\ufffd".encode()
        if self._byte_level:
            if all(character in _BYTE_OF for character in token):
                return bytes(_BYTE_OF[character] for character in token)
            return token.encode()  # added to the vocabulary as it stands
        if self._byte_fallback and (match := _BYTE.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.replace(SPACE, " ").encode()

    def spell(self, text: str, avoid: Container[int]) -> list[int]:
        """Ids of a text character by character, none of them in `avoid`."""
        if self._byte_level:
            characters = [_CHARACTER[byte] for byte in text.encode()]
            return [self.ids[c] for c in characters if c in self.ids]
        ids: list[int] = []
        for character in text.replace(" ", SPACE):
            id = self.ids.get(character)
            as_bytes = [self.ids.get(f"<0x{byte:02X}>") for byte in character.encode()]
            if id is not None and id not in avoid:
                ids.append(id)
            elif self._byte_fallback and None not in as_bytes:
                ids += [id for id in as_bytes if id is not None]
            elif self.unknown is not None:
                ids.append(self.unknown)
        return ids


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}: give the path of a tokenizer.json")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # bad JSON or bad UTF-8
        raise ValueError(f"{path} is no JSON file: {error}") from None
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or "vocab" not in model:
        raise ValueError(f"{path} holds no tokenizer: give the tokenizer.json of a fast tokenizer")
    content.setdefault("added_tokens", [])
    return content


def _leaves(decoder: dict[str, Any] | None) -> Iterable[dict[str, Any]]:
    if decoder is not None and decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _leaves(part)
    elif decoder is not None:
        yield decoder


def _writes_spaces(decoder: dict[str, Any]) -> bool:
    replaced = decoder.get("pattern", {}).get("String") if decoder["type"] == "Replace" else None
    return decoder["type"] == "Metaspace" or replaced == SPACE


def _strips_first_space(decoder: dict[str, Any]) -> bool:
    if decoder["type"] == "Strip":
        return decoder["content"] == " " and decoder["start"] > 0
    if decoder["type"] != "Metaspace":
        return False
    if "prepend_scheme" in decoder:
        return decoder["prepend_scheme"] != "never"
    return decoder.get("add_prefix_space", True)  # files from before tokenizers 0.15
