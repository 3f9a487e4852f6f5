"""export --to gguf: a checkpoint becomes a folder for llama.cpp and ollama.

    model-f32.gguf   weights, tokenizer, chat template
    Modelfile        for ollama
    manifest.json    sizes and SHA-256 of both, as every folder of ours has it

The folder appears under its name when both have been written and proven equal; after an error
nothing is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from lit_llm.checkpoint.bundle import (
    check_weights,
    lineage,
    load_model,
    read_meta,
    read_tokenizer,
)
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.gguf import chat, llama_cpp
from lit_llm.checkpoint.gguf.architecture import architecture, refuse_others, sizes
from lit_llm.checkpoint.gguf.file import ARCHITECTURE, Metadata, library, write_file
from lit_llm.checkpoint.gguf.modelfile import modelfile
from lit_llm.checkpoint.gguf.pieces import Described
from lit_llm.checkpoint.gguf.prove import prove_file
from lit_llm.checkpoint.gguf.tensors import TYPES, plan
from lit_llm.checkpoint.gguf.vocabulary import Vocabulary, vocabulary
from lit_llm.checkpoint.plain import gpt_from_plain
from lit_llm.checkpoint.reader import Reader
from lit_llm.checkpoint.verification import see_whole
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.jinja import to_jinja

FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32, "q8_0": 7}
"""llama.cpp's numbers for what most of a file is (llama_ftype); shown to users, not relied on."""


class Source(NamedTuple):
    """What is exported."""

    folder: Path
    config: GPTConfig
    tokenizer: Tokenizer
    is_chat: bool


def export_gguf(source: Path, target: Path, dtype: str = "float32") -> list[str]:
    """Write a checkpoint for llama.cpp and ollama, and prove that they get the same model.

    Needs memory for one tensor, and, where llama.cpp is run to compare, for the model in float32.

    Args:
        source: a checkpoint, as `lit_llm.checkpoint.find.resolve` gives it
        target: the folder; nothing may stand there
        dtype: of the matrices, a key of `tensors.TYPES`

    Returns:
        What was proven, for the user.

    Raises:
        ValueError: llama.cpp cannot compute what the model does, or the package gguf is missing.
        CheckpointError: the source is damaged or holds no model, or something stands at `target`.
        NotEqual: the file is not what was meant, or llama.cpp computes something else with it.
        OSError: the disk is full; nothing is left then.
    """
    library()
    checkpoint = _read(source)
    words = vocabulary(checkpoint.tokenizer, checkpoint.config.vocab_size)
    metadata = _metadata(checkpoint, words, target.name, dtype)
    for each in lineage(source):  # adapters have a base
        see_whole(each)
    tensors = plan(_reader(source, checkpoint.config), checkpoint.config, dtype)
    name = f"model-{TYPES[dtype].lower()}.gguf"
    told: list[str] = []

    def write(folder: Path) -> None:
        path = folder / name
        write_file(path, metadata, tensors)
        told.append(prove_file(path, metadata, tensors))
        told.extend(_prove_use(path, checkpoint, words, dtype))
        text = _modelfile(checkpoint, metadata, name)
        (folder / "Modelfile").write_text(text, encoding="utf-8")

    write_folder(target, write, bytes_needed=sum(tensor.nbytes for tensor in tensors))
    return told


def _read(folder: Path) -> Source:
    meta = read_meta(folder)
    config = gpt_from_plain(meta["model"])
    refuse_others(config, meta)
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"{folder} holds no tokenizer, and llama.cpp reads no model without one")
    return Source(folder, config, tokenizer, bool(meta.get("chat")))


def _reader(folder: Path, config: GPTConfig) -> Reader:
    reader = Reader(folder)
    with torch.device("meta"):
        check_weights(GPT(config), reader.skeleton())
    return reader


def _metadata(source: Source, words: Vocabulary, name: str, dtype: str) -> Metadata:
    """All keys of the file."""
    metadata: Metadata = {
        ARCHITECTURE: architecture(source.config),
        "general.type": "model",
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,  # of Q8_0's layout
        **sizes(source.config),
        **words.metadata,
    }
    # llama.cpp strips spaces behind the control tokens of models that are called so.
    if not any(other in name.lower() for other in ("phi-3", "phi3", "modern-bert")):
        metadata["general.name"] = name
    if source.is_chat:
        metadata["tokenizer.chat_template"] = to_jinja(
            source.tokenizer.chat_template, source.tokenizer, marks_answers=False
        )
    return metadata


def _modelfile(source: Source, metadata: Metadata, name: str) -> str:
    tokenizer = source.tokenizer
    template: str | None = chat.PLAIN
    if source.is_chat:
        template = chat.to_go(tokenizer.chat_template, tokenizer)
    ends = tokenizer.stop_ids(chat=source.is_chat)
    stops = [metadata["tokenizer.ggml.tokens"][id] for id in sorted(ends)]
    return modelfile(name, template, stops, source.config.max_seq_len)


def _notes(described: Described) -> list[str]:
    """What llama.cpp does in another way."""
    notes = []
    if described.composes:
        notes.append("note: llama.cpp takes characters as they come, the tokenizer composes (NFC)")
    if described.lacks_bytes:
        notes.append("note: the tokenizer has not all bytes; llama.cpp skips them in another way")
    if described.mistakable:
        notes.append(f"note: llama.cpp reads a typed {' or '.join(described.mistakable)} as such")
    return notes


def _prove_use(path: Path, source: Source, words: Vocabulary, dtype: str) -> list[str]:
    """Run llama.cpp, or say that it has not been run; and say what it does in another way.

    Raises:
        NotEqual: it does not compute the model.
    """
    said = _notes(words.described)
    if not llama_cpp.is_there():
        return [
            *said,
            f"llama.cpp was not run: pip install {llama_cpp.PACKAGE}, and export compares with it",
        ]
    gpt, _ = load_model(source.folder, verify=False)
    question = llama_cpp.question(source.config, source.tokenizer, words, is_chat=source.is_chat)
    figures = llama_cpp.compare(path, gpt.float(), source.tokenizer, question)
    return [*said, llama_cpp.judge(figures, dtype)]
