"""Does llama.cpp encode as a byte-level tokenizer.json does, and how is it told to?

Its "gpt2" tokenizer merges pairs in the order of the merges. What differs between published ones is
how a text is cut into words first, a regular expression: llama.cpp knows some of them by name.
"""

from __future__ import annotations

import json
from typing import Any

from lit_llm.checkpoint.gguf.pieces import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Described,
    Piece,
)
from lit_llm.tokenizer.huggingface import HuggingFace
from lit_llm.tokenizer.tokenizer_json import byte_characters
from lit_llm.tokenizer.words import GPT2

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + r"\p{N}{1,3}" + _SYMBOLS
QWEN2 = _CONTRACTIONS + r"\p{N}" + _SYMBOLS

_PRE = {
    # cut, whether a word that is a token is taken as it is: llama.cpp's name
    (GPT2, False): "gpt-2",
    (LLAMA3, True): "llama-bpe",
    (LLAMA3, False): "smaug-bpe",
    (QWEN2, False): "qwen2",
    ("digits, " + GPT2, False): "smollm",
}


def describe(tokenizer: HuggingFace) -> Described:
    """A tokenizer.json as llama.cpp's "gpt2".

    Raises:
        ValueError: llama.cpp would come to other tokens.
    """
    content = tokenizer.content()
    model = content["model"]
    _refuse_others(content)
    composes = _composes(content.get("normalizer"))
    pre = _pre_tokenizer(content.get("pre_tokenizer"), bool(model.get("ignore_merges")))
    pieces = _pieces(content, set(tokenizer.special.values()))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    metadata = {"tokenizer.ggml.merges": merges}
    unknown = model["vocab"].get(model.get("unk_token"))
    if unknown is not None:
        metadata["tokenizer.ggml.unknown_token_id"] = unknown
    merged = {merge.replace(" ", "") for merge in merges}
    mistakable = [piece.text for piece in pieces if piece.type == CONTROL and piece.text in merged]
    lacks_bytes = not model["vocab"].keys() >= set(byte_characters().values())
    return Described("gpt2", pre, pieces, metadata, mistakable, lacks_bytes, composes)


def _refuse_others(content: dict[str, Any]) -> None:
    model = content["model"]
    is_byte_level = "ByteLevel" in json.dumps(content.get("decoder"))
    if model.get("type") != "BPE" or not is_byte_level or not model["merges"]:
        raise ValueError(
            f"a {model.get('type')} tokenizer.json that is no byte-level BPE: llama.cpp reads no "
            "other; if it comes with a tokenizer.model, train with that"
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(name):
            raise ValueError(f"{name}={model[name]!r} of the tokenizer: llama.cpp knows none")


def _composes(normalizer: dict[str, Any] | None) -> bool:
    """Whether characters are composed first, as Qwen does; most text is in that form anyway."""
    if normalizer is None or normalizer["type"] == "NFC":
        return normalizer is not None
    raise ValueError(
        f"normalizer {normalizer['type']} of the tokenizer: llama.cpp normalizes nothing; "
        "take a tokenizer without, or with NFC"
    )


def _pre_tokenizer(cut: dict[str, Any] | None, ignores_merges: bool) -> str:
    shape = _shape(cut)
    if (name := _PRE.get((shape, ignores_merges))) is not None:
        return name
    how = ", with ignore_merges" if ignores_merges else ""
    raise ValueError(
        f"the tokenizer cuts words by {shape}{how}: no name of llama.cpp's is known for that; "
        "it has GPT-2's, Llama 3's, Qwen2's and SmolLM's"
    )


def _shape(cut: dict[str, Any] | None) -> str:
    """How words are cut: a regular expression, or the file's own words for another way."""
    cut = cut or {"type": "nothing"}
    *before, last = cut["pretokenizers"] if cut["type"] == "Sequence" else [cut]
    kinds = [part["type"] for part in before]
    if last["type"] == "ByteLevel" and not last.get("add_prefix_space", True):
        by_gpt2 = last.get("use_regex", True)
        if by_gpt2 and not before:
            return GPT2
        if by_gpt2 and kinds == ["Digits"] and before[0].get("individual_digits"):
            return f"digits, {GPT2}"
        if not by_gpt2 and kinds == ["Split"] and _isolates(before[0]):
            return before[0]["pattern"]["Regex"]
    return json.dumps(cut)


def _isolates(split: dict[str, Any]) -> bool:
    """Whether what the expression finds becomes a word."""
    found = split["behavior"] == "Isolated" and not split.get("invert")
    return found and "Regex" in split["pattern"]


def _pieces(content: dict[str, Any], special: set[int]) -> list[Piece]:
    pieces = {id: Piece(text, NORMAL) for text, id in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        is_control = token["special"] or token["id"] in special
        pieces[token["id"]] = Piece(token["content"], CONTROL if is_control else USER_DEFINED)
        if not is_control and any(token.get(flag) for flag in ("lstrip", "rstrip", "single_word")):
            raise ValueError(
                f"the added token {token['content']!r} takes spaces along or wants whole words, "
                "which llama.cpp does not know: take a tokenizer without"
            )
    if named := special - {token["id"] for token in content["added_tokens"]}:
        text = pieces[min(named)].text
        raise ValueError(
            f"{text!r} serves as a control token and is a word as well, llama.cpp would take it "
            "for the control token: name an added token (HuggingFace: special)"
        )
    ids = range(max(pieces) + 1)
    return [pieces.get(id, Piece(f"[UNUSED_{id}]", UNUSED)) for id in ids]
