"""Import: a folder in Hugging Face's form becomes a checkpoint, where `fit` and `predict` start.

One tensor is in memory at a time, until the proof loads the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lit_llm.checkpoint.bundle import (
    TIED,
    TIED_TO,
    WEIGHTS,
    with_weights,
    write_description,
)
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.hf.architectures import from_hf_config
from lit_llm.checkpoint.hf.chat import TALKS, give_chat, take_chat
from lit_llm.checkpoint.hf.names import from_hf, to_hf
from lit_llm.checkpoint.hf.prove import prove
from lit_llm.checkpoint.hf.source import Source
from lit_llm.checkpoint.hf.tokenizer_files import read_foreign_chat, read_foreign_tokenizer
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.safetensors_file import write_streamed
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.size import skeleton

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


_NO_WEIGHTS = ("rotary_emb.inv_freq",)  # a table that old versions of transformers saved too


def import_hf(source: Path, target: Path, *, chat_template: Path | None = None) -> list[str]:
    """Make a checkpoint of a published model, and prove that it computes the same.

    Args:
        source: holds config.json, safetensors and a tokenizer, as `save_pretrained` leaves them
        target: where to; nothing may stand there
        chat_template: a Jinja text to take in place of the model's own

    Returns:
        What was proven, and what was left out, for the user.

    Raises:
        NotEqual: transformers computes something else; nothing is left.
        ValueError: a file is missing or damaged, or asks for what GPT does not compute.
        CheckpointError: something stands at `target`.
    """
    theirs = Source(source)
    config = from_hf_config(theirs.config)
    weights = _Weights(theirs, config)
    tokenizer, facts = read_foreign_tokenizer(source, TALKS)
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model only vocab_size="
            f"{config.vocab_size:,}: one of them belongs to another model"
        )
    told = weights.notes
    if chat_template is None:
        chat, notes = take_chat(read_foreign_chat(source), tokenizer, facts)
    else:
        chat, notes = give_chat(chat_template, tokenizer, facts)
    told += notes
    is_theirs = chat and chat_template is None
    meta = {
        "model": gpt_to_plain(config),
        "objective": {"class_path": "lit_llm.objective.causal.CausalLM", "init_args": {}},
        "bidirectional": False,
        "chat": chat,
        "step": 0,
        "config": {},
        "data": {},
        "imported": {"from": _name(source, theirs.config), "config": theirs.config},
    }

    def write(folder: Path) -> Entries:
        entries = write_description(folder, meta, tokenizer)
        entries[WEIGHTS] = write_streamed(folder / WEIGHTS, weights.shapes, weights.read)

        def load() -> GPT:
            state = load_file(folder / WEIGHTS)
            if config.tie_embeddings:
                state[TIED] = state[TIED_TO]
            return with_weights(config, state)

        proof = prove(source, config, load, weights.dtype, tokenizer, chat=is_theirs)
        told.extend(proof.lines())
        return entries

    write_folder(target, write, bytes_needed=sum(t.nbytes for t in weights.shapes.values()))
    return told


class _Weights:
    """The tensors of a folder by our names, one at a time."""

    def __init__(self, source: Source, config: GPTConfig) -> None:
        self._source = source
        self.notes: list[str] = []
        self._stored = self._by_our_names()
        self._check_tie(config)
        dtypes = {self._source.tensors[name].dtype for name in self._stored.values()}
        if strange := [dtype for dtype in dtypes if dtype not in FLOATS]:
            name = next(n for n, t in self._source.tensors.items() if t.dtype == strange[0])
            raise ValueError(
                f"{name} has dtype {str(strange[0]).removeprefix('torch.')}: quantized weights are "
                "not supported, import the model that they were made of"
            )
        # Mixed weights take the widest kind; float64 would have no kernels.
        wide = len(dtypes) > 1 or torch.float64 in dtypes
        self.dtype = torch.float32 if wide else next(iter(dtypes))
        if wide:
            self.notes.append("weights of several kinds are kept in float32")
        self._compare_shapes(config)
        self.shapes = {
            name: torch.empty(source.tensors[theirs].shape, dtype=self.dtype, device="meta")
            for name, theirs in self._stored.items()
        }

    def read(self, name: str) -> Tensor:
        """A weight of `GPT.state_dict()`.

        Raises:
            ValueError: it holds NaN or infinity.
        """
        tensor = self._source.read(self._stored[name]).to(self.dtype)
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{self._stored[name]} holds NaN or infinity: the file is damaged, or the model "
                "diverged when it was trained"
            )
        return tensor

    def _by_our_names(self) -> dict[str, str]:
        stored = {}
        for name in self._source.tensors:
            if name.endswith(_NO_WEIGHTS):
                continue
            try:
                stored[from_hf(name)] = name
            except KeyError:
                raise ValueError(
                    f"{self._source.folder}: weight {name} has no place in the model that "
                    "config.json describes"
                ) from None
        return stored

    def _check_tie(self, config: GPTConfig) -> None:
        """Drop a second copy of a tied table; one that differs contradicts config.json."""
        if not config.tie_embeddings or TIED not in self._stored or TIED_TO not in self._stored:
            return
        head, table = (self._source.read(self._stored[name]) for name in (TIED, TIED_TO))
        if not torch.equal(head, table):
            raise ValueError(
                "config.json: tie_word_embeddings=True, but lm_head.weight and "
                "model.embed_tokens.weight differ: one of them is wrong"
            )
        del self._stored[TIED]

    def _compare_shapes(self, config: GPTConfig) -> None:
        expected = dict(skeleton(config).state_dict())
        if config.tie_embeddings:
            expected.pop(TIED)
        tensors = self._source.tensors
        wrong = [f"{to_hf(name)} is missing" for name in expected if name not in self._stored]
        wrong += [f"{self._stored[n]} is unknown to it" for n in self._stored if n not in expected]
        wrong += [
            f"{self._stored[name]} has shape {tuple(tensors[self._stored[name]].shape)}, "
            f"not {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in self._stored and tensors[self._stored[name]].shape != tensor.shape
        ]
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise ValueError(
                f"{self._source.folder}: the weights are not those that config.json describes: "
                f"{'; '.join(wrong[:3])}{more}"
            )


def _name(source: Path, config: dict[str, Any]) -> str:
    """What the model was published as, as far as that is known."""
    said = config.get("_name_or_path")
    return said if isinstance(said, str) and said else source.absolute().name
