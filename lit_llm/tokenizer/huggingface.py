"""How is a Hugging Face tokenizer.json used so that no text can type a control token?

By default the library turns a typed "<|im_start|>" into the control token. `encode_special_tokens`
stops that for BPE, but a unigram model (T5, XLM-RoBERTa) still finds "</s>" in its own
vocabulary: there the ids of its characters take its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_llm.tokenizer.base import SPECIAL, Tokenizer, bytes_of, find_special, require_utf8
from lit_llm.tokenizer.tokenizer_json import TokenizerJson
from lit_llm.tokenizer.words import by_gpt2_words

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"
SPECIAL_FILE = "special_tokens.json"
NO_BOS = "texts begin without bos"
STOPS = "tokens that end an answer too"


class HuggingFace(Tokenizer):
    """A tokenizer.json: byte-level BPE (GPT-2, Llama 3, Qwen) or SentencePiece-like (Llama 2, T5).

    It is as lossless as its makers wanted: byte-level ones keep any text. Truncation, padding and
    BPE dropout that the file may ask for are off: ids depend on the text alone.

    Args:
        path: the tokenizer.json
        special: tokens of the file to use as control tokens, e.g. {"pad": "<|endoftext|>"}; those
            not named here are found by how published tokenizers write them
        add_missing: append a control token for each name that is still missing, as chatting with
            GPT-2's tokenizer needs; the vocabulary grows by them
        add_bos: begin each text with the bos token, as a model that is trained from scratch should
            see it; false for published models that were trained without (Qwen)
        stops: tokens that end an answer, besides eos and the end of a turn

    Raises:
        ValueError: the package `tokenizers` is missing, the file is of neither kind, or `special`
            names what does not exist.
    """

    def __init__(
        self,
        path: str,
        special: dict[str, str] | None = None,
        add_missing: bool = False,
        add_bos: bool = True,
        stops: Sequence[str] = (),
    ) -> None:
        file = TokenizerJson(Path(path))
        self._special = _choose_special(file, special or {})
        for name in SPECIAL if add_missing else ():
            if name not in self._special:
                self._special[name] = file.append(f"<|{name}|>")
        file.mark_special(self._special.values())
        control = {token["id"] for token in file.added if token["special"]} - {file.unknown}
        self._control = frozenset(control | set(self._special.values()))

        self._tokens = {id: token for token, id in file.ids.items()}
        self._bytes = [b""] * (max(self._tokens) + 1)
        for id, token in self._tokens.items():
            self._bytes[id] = b"" if id in self._control else file.bytes_of(token)
        self._spelled = {id: file.spell(self._tokens[id], self._control) for id in self._control}
        self._adds_space = file.adds_space
        self._add_bos = add_bos
        if unknown := sorted(set(stops) - file.ids.keys()):
            raise ValueError(f"stops has {unknown[0]!r}, which is no token of this tokenizer")
        self._stops = frozenset(file.ids[token] for token in stops)
        self._json = json.dumps(file.content, ensure_ascii=False)
        self._use(Path(path))

    def _use(self, path: Path) -> None:
        self._tokenizer = _build(self._json, path)
        self._encode_texts: Callable[[Sequence[str]], Iterable[Sequence[int]]] = self._encode_each
        if _cuts_as_gpt2(json.loads(self._json)):
            self._encode_texts = by_gpt2_words(self._encode_each)
        inside = _without_first_space(json.loads(self._json))
        self._inside = None if inside is None else _build(json.dumps(inside), path)

    def __getstate__(self) -> dict[str, Any]:
        # The library's own pickle forgets encode_special_tokens.
        left_out = ("_tokenizer", "_encode_texts", "_inside")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._use(Path(FILE))

    @property
    def vocab_size(self) -> int:
        return len(self._bytes)

    @property
    def special(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def control(self) -> dict[str, int]:
        return {self._tokens[id]: id for id in sorted(self._control)}

    @property
    def fingerprint(self) -> str:
        special = json.dumps(self._special, sort_keys=True) + ("" if self._add_bos else "no bos")
        return hashlib.sha256((self._json + special).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        require_utf8(text)
        return self._without_control(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def content(self) -> dict[str, Any]:
        """What its tokenizer.json holds, control tokens that were added here included."""
        return json.loads(self._json)

    def stop_ids(self, *, chat: bool) -> set[int]:
        return super().stop_ids(chat=chat) | self._stops

    def encode_inside(self, text: str) -> list[int]:
        if self._inside is None:
            return self.encode(text)
        require_utf8(text)
        return self._without_control(self._inside.encode(text, add_special_tokens=False).ids)

    def document(self, ids: Iterable[int]) -> list[int]:
        return super().document(ids) if self._add_bos else list(ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids) for ids in self._encode_all(texts)]

    def encode_arrays(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        own = type(self).encode_batch is not HuggingFace.encode_batch  # a subclass has another
        return self.encode_batch(texts) if own else self._encode_all(texts)

    def _encode_all(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """`encode` of each text; where its words can be told apart, of each word once."""
        for text in texts:
            require_utf8(text)
        return list(self._encode_texts(texts))

    def decode(self, ids: Iterable[int]) -> str:
        text = super().decode(ids)
        return text.removeprefix(" ") if self._adds_space else text

    def token_bytes(self, id: int) -> bytes:
        return bytes_of(self._bytes, id)

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self._json, encoding="utf-8")
        special: dict[str, Any] = {name: self._tokens[id] for name, id in self._special.items()}
        if not self._add_bos:
            special[NO_BOS] = True
        if self._stops:
            special[STOPS] = [self._tokens[id] for id in sorted(self._stops)]
        (folder / SPECIAL_FILE).write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> HuggingFace:
        special = json.loads((folder / SPECIAL_FILE).read_text(encoding="utf-8"))
        add_bos, stops = not special.pop(NO_BOS, False), special.pop(STOPS, ())
        return cls(str(folder / FILE), special=special, add_bos=add_bos, stops=stops)

    def _encode_each(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """By the library, in its threads (TOKENIZERS_PARALLELISM)."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return (self._without_control(encoding.ids) for encoding in encodings)

    def _without_control(self, ids: list[int]) -> list[int]:
        if self._control.isdisjoint(ids):
            return ids
        return [part for id in ids for part in self._spelled.get(id, (id,))]


def _choose_special(file: TokenizerJson, wanted: dict[str, str]) -> dict[str, int]:
    for name, token in wanted.items():
        if name not in SPECIAL:
            raise ValueError(f"special has the name {name!r}: choose from {', '.join(SPECIAL)}")
        if token not in file.ids:
            raise ValueError(
                f"special.{name}={token!r} is no token of this tokenizer: "
                f"name one that it has, or leave it out and set add_missing: true"
            )
    found = find_special({token["content"]: token["id"] for token in file.added})
    return found | {name: file.ids[token] for name, token in wanted.items()}


def _cuts_as_gpt2(content: dict[str, Any]) -> bool:
    """Whether the words that GPT-2's tokenizer cuts a text into are encoded one by one."""
    cut = content.get("pre_tokenizer") or {}
    model = content.get("model") or {}
    return (
        cut.get("type") == "ByteLevel"
        and cut.get("use_regex", True)
        and not cut.get("add_prefix_space", True)
        and content.get("normalizer") is None
        and model.get("type") == "BPE"
        and not model.get("dropout")
        # What is no control token is found in the text itself, across words.
        and all(token["special"] for token in content["added_tokens"])
    )


def _without_first_space(content: dict[str, Any]) -> dict[str, Any] | None:
    """The same for text behind a control token, where no space is put in front of it.

    None if that makes no difference: the space comes in front of every piece of text, or of none.
    """
    found = False
    cut = content.get("pre_tokenizer") or {}
    for part in cut.get("pretokenizers", [cut]):
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"], found = "never", True
    return content if found else None


def _build(content: str, path: Path) -> tokenizers.Tokenizer:
    try:
        import tokenizers  # an extra: most users train a SentencePiece of their own
    except ImportError:
        raise ValueError(
            "a tokenizer.json needs the package tokenizers: pip install 'lit-llm[hf]'"
        ) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"{path} is no tokenizer.json that tokenizers reads: {error}") from None
    for token in json.loads(content)["added_tokens"]:
        if tokenizer.token_to_id(token["content"]) != token["id"]:
            raise ValueError(
                f"{path} gives {token['content']!r} the id {token['id']}, tokenizers "
                f"{tokenizer.token_to_id(token['content'])}: its ids have a hole; save it anew"
            )
    tokenizer.encode_special_tokens = True
    return tokenizer
