"""Adapters become part of the weights: a LoRA run's checkpoint as an ordinary one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.base import BASE, LORA, find_base, is_adapted
from lit_llm.checkpoint.bundle import (
    Bundle,
    check_weights,
    load_bundle,
    load_model,
    own_weights,
    read_meta,
    write_bundle,
)
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hashed import Entries
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.plain import gpt_from_plain, lora_from_plain
from lit_llm.checkpoint.training_state import tensor_bytes
from lit_llm.model.gpt import GPT
from lit_llm.model.lora import add_adapters, learned_of

TOLERANCE = 1e-5  # of the largest logit; rounding in float32 comes to a tenth of it
_ROWS, _TOKENS, _SEED = 2, 64, 0


def merge_adapters(source: Path, target: Path) -> list[str]:
    """Write a LoRA run's checkpoint as one of the whole network, W + alpha / rank * B A.

    The state of training stays behind: it is that of adapters, which are no more. Before the
    folder takes its name, what was written has given the logits of the network with its adapters
    apart. Needs memory for three networks in float32.

    Args:
        source: a checkpoint of adapters, as `lit_llm.checkpoint.find.resolve` gives it
        target: where to; nothing may stand there

    Returns:
        What was compared, for the user.

    Raises:
        CheckpointError: the source or its base is damaged or not there, something stands at
            `target`, or the logits differ.
        OSError: the disk is full; nothing is left then.
    """
    bundle = load_bundle(source)
    compared: list[str] = []

    def write(folder: Path) -> Entries:
        entries = write_bundle(folder, _whole(bundle), bundle.state, bundle.tokenizer)
        compared.append(_prove(folder, source))
        return entries

    write_folder(target, write, bytes_needed=tensor_bytes(bundle.state))
    return compared


def load_apart(folder: Path) -> GPT:
    """Build the network of a LoRA run, adapters beside the weights, in eval mode and float32.

    Verifies nothing.

    Raises:
        ValueError: the checkpoint holds no adapters, or its base is not there or another one.
    """
    meta = read_meta(folder)
    if not is_adapted(meta):
        raise CheckpointError(f"{folder} holds no adapters: give a checkpoint of a LoRA run")
    base = load_bundle(find_base(folder, meta), verify=False)
    gpt = GPT(gpt_from_plain(meta["model"])).float()
    check_weights(gpt, base.state)
    gpt.load_state_dict(base.state)
    lora = lora_from_plain(meta[LORA])
    add_adapters(gpt, lora)
    own = own_weights(folder, meta)
    check_weights(learned_of(gpt.state_dict(), lora), own)
    gpt.load_state_dict(own, strict=False)  # the rest is the base's
    return gpt.eval()


def _whole(bundle: Bundle) -> dict[str, Any]:
    """The description of the merged checkpoint."""
    meta = {key: value for key, value in bundle.meta.items() if key not in (LORA, BASE)}
    config = meta.get("config") or {}
    if config.get("model"):
        meta["config"] = {**config, "model": {**config["model"], LORA: None}}
    return meta


def _prove(folder: Path, source: Path) -> str:
    """Compare the logits of what was written with those of the adapters' own checkpoint."""
    merged, _ = load_model(folder, verify=False)
    found, expected = _logits(merged), _logits(load_apart(source))
    off, largest = float((found - expected).abs().max()), float(expected.abs().max())
    if not off <= TOLERANCE * largest:
        raise CheckpointError(
            f"{source}: merged, logits differ by {off:.1e} where the largest is {largest:.1f}, and "
            f"rounding explains {TOLERANCE:.0e} of it: nothing is written. This should not happen"
        )
    return f"equal to the adapters apart: logits differ by at most {off:.1e} of {largest:.1f}"


@torch.inference_mode()
def _logits(gpt: GPT) -> Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    size = (_ROWS, min(_TOKENS, gpt.config.max_seq_len))
    logits: Tensor = gpt(torch.randint(gpt.config.vocab_size, size, generator=generator))
    return logits
