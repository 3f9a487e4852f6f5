"""A model that needs nothing beside it: weights, tokenizer and the description of the network.

Reads no optimizer state and imports no Lightning: prediction, serving, export and `init_from`
start here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lit_llm.checkpoint.base import (
    ADAPTERS,
    BASE,
    LORA,
    find_base,
    is_adapted,
    relative_to,
)
from lit_llm.checkpoint.hashed import Entries, write_bytes
from lit_llm.checkpoint.manifest import CheckpointError, LaterFormat, unreadable
from lit_llm.checkpoint.plain import gpt_from_plain, lora_from_plain
from lit_llm.checkpoint.safetensors_file import write_tensors
from lit_llm.checkpoint.sharded import Shards, is_sharded
from lit_llm.checkpoint.verification import NOTICEABLE, verified
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import SkipInit
from lit_llm.model.lora import learned_of, merge
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.load import load_tokenizer, save_tokenizer

FORMAT = 2  # of bundle.json; raised when an older reader would misread it
_WHOLE, _ADAPTED = 1, 2  # what readers of format 1 understand is still written as such
WEIGHTS = "model.safetensors"
DESCRIPTION = "bundle.json"
MODEL = "model."  # begins the names of weights among the tensors of a sharded checkpoint
TIED, TIED_TO = "lm_head.weight", "embed.weight"


@dataclass
class Bundle:
    """What a checkpoint holds besides the state of training."""

    config: GPTConfig
    """The network's sizes and parts."""

    state: dict[str, Tensor]
    """The weights, named as in `GPT.state_dict()`; a tied lm_head.weight is embed.weight itself.
    Adapters are merged into the weights of their base, in float32."""

    tokenizer: Tokenizer | None
    """What the network was trained with; None if the checkpoint holds none."""

    meta: dict[str, Any]
    """bundle.json: model, objective, chat, run, step, config, data; of adapters lora and base."""


def write_bundle(
    folder: Path, meta: dict[str, Any], state: dict[str, Tensor], tokenizer: Tokenizer | None
) -> Entries:
    """Write a bundle's files into an existing folder; `write_folder` makes that safe.

    Args:
        folder: where to
        meta: plain values for bundle.json; `model` is `gpt_to_plain(config)`
        state: `GPT.state_dict()`, whole tensors on any device; if `meta` has `lora` and `base`,
            only what the run learns of it is written
        tokenizer: saved into the folder by its own class

    Returns:
        The manifest's entries of all files but the tokenizer's, whose class writes them by itself.

    Raises:
        ValueError: `meta` holds something that JSON does not.
    """
    entries = write_description(folder, meta, tokenizer)
    if is_adapted(meta):
        state = learned_of(state, lora_from_plain(meta[LORA]))
    if meta["model"]["tie_embeddings"] and TIED in state:
        assert torch.equal(state[TIED], state[TIED_TO]), "tied embeddings have come apart"
        state = {name: tensor for name, tensor in state.items() if name != TIED}
    file = weights_file(meta)
    return {**entries, file: write_tensors(folder / file, state)}


def write_description(folder: Path, bundle: dict[str, Any], tokenizer: Tokenizer | None) -> Entries:
    """Write all of a bundle but the weights; see `write_bundle`, whose `meta` is `bundle`."""
    meta = {**bundle, "format": _WHOLE}
    if is_adapted(bundle):
        meta |= {BASE: relative_to(folder, bundle[BASE]), "format": _ADAPTED}
    try:
        text = json.dumps(meta, indent=2, ensure_ascii=False)
    except TypeError as error:
        raise ValueError(f"{DESCRIPTION} takes plain values only: {error}") from error
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)
    return {DESCRIPTION: write_bytes(folder / DESCRIPTION, f"{text}\n".encode())}


def load_bundle(folder: Path, *, verify: bool = True, device: torch.device | str = "cpu") -> Bundle:
    """Read a checkpoint's weights, tokenizer and description.

    Of a LoRA run's checkpoint that is the whole network, its adapters merged.

    Args:
        folder: a checkpoint, as `lit_llm.checkpoint.find.resolve` gives it
        verify: compare every file with the manifest meanwhile (about 1 s per GB and core)
        device: where the weights go

    Raises:
        CheckpointError: a file is missing or damaged, the base of adapters is not there or
            another one, or a later lit-llm wrote the checkpoint.
        ValueError: a class that the checkpoint names cannot be imported.
    """
    with verified(folder, said_from=NOTICEABLE) if verify else nullcontext():
        meta = read_meta(folder)
        config = gpt_from_plain(meta["model"])
        state = own_weights(folder, meta, device=device)
        if is_adapted(meta):
            base = load_bundle(find_base(folder, meta), verify=verify, device=device)
            state = merge(base.state, state, lora_from_plain(meta[LORA]).scale)
        if config.tie_embeddings:
            state[TIED] = state[TIED_TO]
        return Bundle(config, state, read_tokenizer(folder), meta)


def load_model(
    folder: Path, *, verify: bool = True, device: torch.device | str = "cpu"
) -> tuple[GPT, Bundle]:
    """Build the network of a checkpoint, in eval mode, with the weights and dtypes of its file.

    Its parameters are the tensors of `Bundle.state`, not copies.

    Raises:
        ValueError: as `load_bundle`, or the weights do not fit the network.
    """
    bundle = load_bundle(folder, verify=verify, device=device)
    return with_weights(bundle.config, bundle.state).to(device).eval(), bundle


def with_weights(config: GPTConfig, state: dict[str, Tensor]) -> GPT:
    """A network whose parameters are these tensors, not copies.

    Raises:
        ValueError: they do not fit it.
    """
    gpt = empty_model(config)
    check_weights(gpt, state)
    _assign(gpt, state)
    return gpt


def empty_model(config: GPTConfig) -> GPT:
    """A network whose weights are still to be given; its memory is not touched before that."""
    with SkipInit():
        return GPT(config)


def read_meta(folder: Path) -> dict[str, Any]:
    """Read bundle.json alone.

    Raises:
        CheckpointError: it is missing, no JSON, or of a later format.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no model: {DESCRIPTION} is missing")
    try:
        meta = json.loads(path.read_bytes())
        newer = meta["format"] > FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    if newer:
        raise LaterFormat(
            f"{path} has format {meta['format']}, this lit-llm reads up to {FORMAT}: "
            "install a later lit-llm"
        )
    return meta


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Read the tokenizer alone; None if the checkpoint holds none."""
    return load_tokenizer(folder) if (folder / "tokenizer_class.json").exists() else None


def check_weights(model: nn.Module | Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes with what the model has; nothing is skipped.

    Args:
        model: the network, or its `state_dict()`
        state: weights, perhaps of the meta device

    Raises:
        ValueError: names the first three weights that do not fit, and says how many there are.
    """
    expected = model.state_dict() if isinstance(model, nn.Module) else model
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is unknown to the model" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, the model {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"the weights do not fit the model: {'; '.join(wrong[:3])}{more}")


def own_weights(
    folder: Path, meta: Mapping[str, Any], *, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Read what a checkpoint itself holds: all weights, or adapters alone; verifies nothing."""
    file = folder / weights_file(meta)
    if is_sharded(folder):
        weights = Shards(folder).read_all(MODEL)
        state = {name: tensor.to(device) for name, tensor in weights.items()}
    else:
        try:
            state = load_file(file, device=str(device))
        except SafetensorError as error:
            raise unreadable(file, error) from error
    if has_tied_head(meta):
        state[TIED] = state[TIED_TO]
    return state


def has_tied_head(meta: Mapping[str, Any]) -> bool:
    """Whether a checkpoint itself has an output projection that is the embedding, stored once."""
    learned = not is_adapted(meta) or lora_from_plain(meta[LORA]).learns(TIED)
    return bool(meta["model"]["tie_embeddings"]) and learned


def weights_file(meta: Mapping[str, Any]) -> str:
    """The name of the file that holds a checkpoint's weights, unless they lie in shards."""
    return ADAPTERS if is_adapted(meta) else WEIGHTS


def lineage(folder: Path) -> list[Path]:
    """A checkpoint and those that its weights are made of: the base of adapters, and its base."""
    meta = read_meta(folder)
    return [folder, *(lineage(find_base(folder, meta)) if is_adapted(meta) else [])]


def _assign(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Make the tensors the model's own; parameters that were one stay one."""
    shared: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        shared[id(parameter)].append(name)
    model.load_state_dict(state, strict=True, assign=True)
    for first, *others in shared.values():
        for name in others:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, model.get_parameter(first))
