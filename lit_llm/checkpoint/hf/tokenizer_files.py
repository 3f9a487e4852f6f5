"""How does transformers come to the same ids, from tokenizer.json and its companions?

A SentencePiece model is written out as the BPE of the `tokenizers` library: every way to make a
piece of two others is a merge, in the order in which SentencePiece would choose it. A unigram model
has no such form that agrees (1,600 of 3,000 texts differ in transformers), so it is refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sentencepiece as spm

from lit_llm.checkpoint.hf.source import read_json
from lit_llm.checkpoint.hf.witness import TokenizerFacts, ask_tokenizer
from lit_llm.tokenizer.base import SPACE, Tokenizer
from lit_llm.tokenizer.huggingface import HuggingFace
from lit_llm.tokenizer.jinja import to_jinja
from lit_llm.tokenizer.sentencepiece import SentencePiece

JSON, CONFIG, CHAT, MODEL = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "tokenizer.model",
)
SPECIAL_KEYS = {"bos": "bos_token", "eos": "eos_token", "pad": "pad_token", "mask": "mask_token"}
"""Names of control tokens: how tokenizer_config.json calls them."""


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, chat: bool, max_seq_len: int) -> None:
    """Write all that AutoTokenizer needs.

    Args:
        tokenizer: of a class of lit-llm
        folder: exists
        chat: whether the model was trained on conversations, and so has a chat template
        max_seq_len: longest context, in tokens

    Raises:
        ValueError: it is of another class, or transformers has nothing that tokenises alike.
    """
    if isinstance(tokenizer, SentencePiece):
        tokenizer.save(folder)  # tokenizer.model, for whoever reads that
        content = _as_bpe(tokenizer, folder / MODEL)
    elif isinstance(tokenizer, HuggingFace):
        content = tokenizer.content()
    else:
        raise ValueError(
            f"{type(tokenizer).__name__} is a tokenizer of your own, which transformers does not "
            "have: only SentencePiece and HuggingFace can be exported"
        )
    control = {id: text for text, id in tokenizer.control.items()}
    special = {name: control[id] for name, id in tokenizer.special.items() if id in control}
    begins = tokenizer.document([])
    content["post_processor"] = _begin_with(control[begins[0]], begins[0]) if begins else None
    _write_json(folder / JSON, content)
    named = {key: special[name] for name, key in SPECIAL_KEYS.items() if name in special}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    _write_json(folder / CONFIG, settings)
    if chat:
        text = to_jinja(tokenizer.chat_template, tokenizer)
        (folder / CHAT).write_text(text, encoding="utf-8")


def read_foreign_tokenizer(
    folder: Path, chats: Sequence[dict[str, Any]] = ()
) -> tuple[HuggingFace, TokenizerFacts]:
    """The tokenizer of a published model, without its chat template.

    Args:
        folder: of the model
        chats: as `ask_tokenizer` takes them

    Returns:
        The tokenizer, and what transformers says of it and of the chats.

    Raises:
        ValueError: there is none, or none that keeps text as it is.
    """
    if not any((folder / name).is_file() for name in (JSON, MODEL)):
        raise ValueError(
            f"no tokenizer in {folder}: it holds neither {JSON} nor {MODEL}\n"
            "Put the files of the model's tokenizer beside its weights"
        )
    facts = ask_tokenizer(folder, chats)
    content = json.loads(facts.content)
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    named = {name: facts.special.get(key, "") for name, key in SPECIAL_KEYS.items()}
    ends = _end_ids(folder)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / JSON
        path.write_text(facts.content, encoding="utf-8")
        tokenizer = HuggingFace(
            str(path),
            special={name: token for name, token in named.items() if token in added},
            add_bos=_adds_bos(content),
            stops=[token for token, id in added.items() if id in ends],
        )
    return tokenizer, facts


def _end_ids(folder: Path) -> set[int]:
    """What ends an answer to transformers: eos_token_id, a number or several, of two files."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        said = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        ends |= {id for id in (said if isinstance(said, list) else [said]) if isinstance(id, int)}
    return ends


def read_foreign_chat(folder: Path) -> str | None:
    """The Jinja text of a published model's chat template; None if it has none."""
    if (folder / CHAT).is_file():
        return (folder / CHAT).read_text(encoding="utf-8")
    settings = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    said = settings.get("chat_template")
    if isinstance(said, list):  # several with names; "default" is the one of plain chats
        said = next((one.get("template") for one in said if one.get("name") == "default"), None)
    return said if isinstance(said, str) else None


def _as_bpe(tokenizer: SentencePiece, path: Path) -> dict[str, Any]:
    """tokenizer.json of a SentencePiece model, with all in it that decides ids."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise ValueError(
            "writing a tokenizer.json needs the package protobuf: pip install 'lit-llm[hf]'"
        ) from None
    format: Any = sentencepiece_model_pb2
    model = format.ModelProto.FromString(path.read_bytes())
    kinds = format.TrainerSpec.ModelType
    if model.trainer_spec.model_type not in (kinds.BPE, kinds.CHAR):
        kind = kinds.Name(model.trainer_spec.model_type).lower()
        raise ValueError(
            f"model_type={kind} of this SentencePiece tokenizer: transformers cuts texts into "
            "other tokens with it, so only bpe and char can be exported"
        )
    spec = model.normalizer_spec
    if spec.add_dummy_prefix or spec.remove_extra_whitespaces or spec.precompiled_charsmap:
        raise ValueError(
            f"{MODEL} changes texts before it cuts them, which {JSON} does in another way: "
            "only tokenizers trained here, and those that came with a tokenizer.json, are exported"
        )
    processor = spm.SentencePieceProcessor(model_file=str(path))
    vocab = {processor.id_to_piece(id): id for id in range(len(processor))}
    plain = {
        piece: id
        for piece, id in vocab.items()
        if not (processor.is_control(id) or processor.is_byte(id) or processor.is_unknown(id))
    }
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": id, "content": piece, **flags, "special": True}
        for piece, id in sorted(tokenizer.control.items(), key=lambda item: item[1])
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": processor.id_to_piece(processor.unk_id()),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": any(processor.is_byte(id) for id in range(len(processor))),
            "ignore_merges": False,
            "vocab": vocab,
            "merges": list(_merges(plain, processor)),
        },
    }


def _merges(plain: dict[str, int], processor: spm.SentencePieceProcessor) -> Iterator[list[str]]:
    """Every pair of pieces that makes a third, the piece with the highest score first."""
    by_score = sorted(plain, key=lambda piece: (-processor.get_score(plain[piece]), plain[piece]))
    for piece in by_score:
        for cut in range(1, len(piece)):
            if piece[:cut] in plain and piece[cut:] in plain:
                yield [piece[:cut], piece[cut:]]


def _begin_with(token: str, id: int) -> dict[str, Any]:
    """A post-processor that puts a token in front of each text."""
    begin, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A"}}
    second = [
        {"SpecialToken": {"id": token, "type_id": 1}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ]
    text["Sequence"]["type_id"] = 0  # type: ignore[assignment]
    return {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text, *second],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


def _adds_bos(content: dict[str, Any]) -> bool:
    """Whether a token is put in front of a text."""
    processor = content.get("post_processor") or {}
    parts = processor.get("processors", [processor])
    templates = [part for part in parts if part.get("type") == "TemplateProcessing"]
    return any("SpecialToken" in (part.get("single") or [{}])[0] for part in templates)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
