"""Real text in any amount for the tables about preparation, and a tokenizer for it."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

VOCABULARY = 8192
SPECIAL = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}


def sources() -> Iterator[str]:
    """The source files of Python's standard library, with its tests where they are installed."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # some are there to be invalid
        if text.strip() and "\0" not in text:
            yield text


def write_texts(folder: Path, most_bytes: int | None = None) -> int:
    """A file of each, as 00000.txt, ...; return the bytes."""
    folder.mkdir(parents=True)
    size = 0
    for number, text in enumerate(sources()):
        size += (folder / f"{number:05d}.txt").write_bytes(text.encode())
        if most_bytes is not None and size >= most_bytes:
            break
    return size


def write_tokenizer(folder: Path, texts: Path) -> None:
    """A byte-level BPE like GPT-2's, with the files that lit-llm and litgpt look for."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(path) for path in sorted(texts.glob("*.txt"))[::4]], trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>"}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
