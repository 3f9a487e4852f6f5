"""Export: a checkpoint becomes a folder that transformers loads with no code of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.bundle import (
    MODEL,
    TIED,
    empty_model,
    lineage,
    read_meta,
    read_tokenizer,
)
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.hf.architectures import to_hf_config
from lit_llm.checkpoint.hf.card import model_card
from lit_llm.checkpoint.hf.names import to_hf
from lit_llm.checkpoint.hf.prove import prove
from lit_llm.checkpoint.hf.source import INDEX, WHOLE
from lit_llm.checkpoint.hf.tokenizer_files import write_tokenizer
from lit_llm.checkpoint.plain import gpt_from_plain
from lit_llm.checkpoint.reader import Reader
from lit_llm.checkpoint.safetensors_file import write_streamed
from lit_llm.checkpoint.verification import see_whole
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.tokenizer.base import Tokenizer

SHARD_BYTES = 5_000_000_000
"""Of one file of weights, as transformers saves them."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_hf(
    source: Path, target: Path, dtype: str | None = None, *, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Write a checkpoint as `from_pretrained` of transformers reads it, and prove that it does.

    Args:
        source: a checkpoint, as `lit_llm.checkpoint.find.resolve` gives it
        target: where to; nothing may stand there
        dtype: of the weights: float32, bfloat16 or float16; None: as they are saved
        shard_bytes: of a file of weights at most, one tensor at least

    Returns:
        What was proven, for the user.

    Raises:
        NotEqual: transformers computes something else; nothing is left.
        ValueError: transformers has no such network or tokenizer, or the weights do not fit dtype.
        CheckpointError: the source is damaged, or something stands at `target`.
    """
    meta = read_meta(source)
    config, tokenizer = gpt_from_plain(meta["model"]), read_tokenizer(source)
    if meta["bidirectional"]:
        raise ValueError(
            "this model was trained to fill masks (bidirectional attention), which no family of "
            "transformers that lit-llm exports does"
        )
    if tokenizer is None:
        raise ValueError(f"{source} holds no tokenizer: a model without one is of no use elsewhere")
    for each in lineage(source):  # adapters have a base
        see_whole(each)
    weights = _Weights(Reader(source), config, dtype)
    described = to_hf_config(config, weights.dtype) | _ids(tokenizer)
    told: list[str] = []

    def write(folder: Path) -> Entries:
        write_json(folder / "config.json", described)
        write_json(folder / "generation_config.json", _generation(tokenizer, chat=meta["chat"]))
        write_tokenizer(tokenizer, folder, chat=meta["chat"], max_seq_len=config.max_seq_len)
        entries = weights.write(folder, shard_bytes)
        proof = prove(folder, config, weights.load, weights.dtype, tokenizer, chat=meta["chat"])
        told.extend(proof.lines())
        card = model_card(source, meta, config, proof, chat=meta["chat"], name=target.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return entries

    write_folder(target, write, bytes_needed=weights.bytes)
    return told


class _Weights:
    """The tensors of a checkpoint by transformers' names, in another dtype, one at a time."""

    def __init__(self, reader: Reader, config: GPTConfig, dtype: str | None) -> None:
        self._reader, self._config = reader, config
        skeleton = reader.skeleton()
        if config.tie_embeddings:
            skeleton.pop(TIED)
        saved = {tensor.dtype for tensor in skeleton.values()}
        self.dtype = DTYPES[dtype] if dtype else _widest(saved)
        self._shapes = {
            name: torch.empty(self._cut(name, tensor).shape, dtype=self.dtype, device="meta")
            for name, tensor in skeleton.items()
        }
        self.bytes = sum(tensor.nbytes for tensor in self._shapes.values())

    def read(self, name: str) -> Tensor:
        """A weight of `GPT.state_dict()` as it is exported.

        Raises:
            ValueError: it holds NaN or infinity, or does once it is narrower.
        """
        tensor = self._cut(name, self._reader.read(MODEL + name))
        narrow = tensor.to(self.dtype)
        if not bool(narrow.isfinite().all()):
            kind = str(self.dtype).removeprefix("torch.")
            if bool(tensor.isfinite().all()):
                raise ValueError(
                    f"{name} reaches {float(tensor.abs().max()):.3g}, more than {kind} can hold: "
                    "export with --dtype bfloat16 or float32"
                )
            raise ValueError(f"{name} holds NaN or infinity: the run diverged, use another one")
        return narrow

    def write(self, folder: Path, shard_bytes: int) -> Entries:
        """One file, or shards with an index."""
        shards = list(self._shards(shard_bytes))
        if len(shards) == 1:
            return {WHOLE: self._write_shard(folder / WHOLE, shards[0])}
        entries: Entries = {}
        index: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            entries[file] = self._write_shard(folder / file, names)
            index |= {to_hf(name): file for name in names}
        whole = {"metadata": {"total_size": self.bytes}, "weight_map": index}
        write_json(folder / INDEX, whole)
        return entries

    def load(self) -> GPT:
        """Our own model, with the exported weights."""
        gpt = empty_model(self._config)
        with torch.no_grad():
            for name, parameter in gpt.named_parameters():
                value = self.read(name)
                whole = torch.zeros(parameter.shape, dtype=self.dtype)
                whole[: len(value)] = value
                parameter.data = whole
        return gpt

    def _write_shard(self, path: Path, names: list[str]) -> Any:
        shapes = {to_hf(name): self._shapes[name] for name in names}
        ours = {to_hf(name): name for name in names}
        return write_streamed(path, shapes, lambda name: self.read(ours[name]))

    def _shards(self, shard_bytes: int) -> Iterator[list[str]]:
        names: list[str] = []
        size = 0
        for name, tensor in self._shapes.items():
            if names and size + tensor.nbytes > shard_bytes:
                yield names
                names, size = [], 0
            names.append(name)
            size += tensor.nbytes
        yield names

    def _cut(self, name: str, tensor: Tensor) -> Tensor:
        """Without the rows that pad the vocabulary: no token belongs to them."""
        if name in ("embed.weight", "lm_head.weight"):
            return tensor[: self._config.vocab_size]
        return tensor


def write_json(path: Path, content: dict[str, Any]) -> None:
    """As transformers writes its own."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _ids(tokenizer: Tokenizer) -> dict[str, Any]:
    special = tokenizer.special
    return {
        "bos_token_id": special.get("bos"),
        "eos_token_id": special.get("eos"),
        "pad_token_id": special.get("pad"),
    }


def _generation(tokenizer: Tokenizer, *, chat: bool) -> dict[str, Any]:
    """What ends an answer, and what is never generated: as `predict` does it."""
    stops = tokenizer.stop_ids(chat=chat)
    never = sorted(tokenizer.unsaid_ids(tokenizer.vocab_size, chat=chat))
    return {
        **_ids(tokenizer),
        "eos_token_id": sorted(stops),
        **({"suppress_tokens": never} if never else {}),
    }


def _widest(dtypes: set[torch.dtype]) -> torch.dtype:
    return dtypes.pop() if len(dtypes) == 1 else torch.float32
