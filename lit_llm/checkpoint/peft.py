"""Adapters in the form of Hugging Face's peft: two files beside which the base is loaded as usual.

base = AutoModelForCausalLM.from_pretrained(...)  # the same weights in Hugging Face's form
model = PeftModel.from_pretrained(base, folder)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_llm.checkpoint.base import BASE, LORA, is_adapted
from lit_llm.checkpoint.bundle import own_weights, read_meta
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.hashed import Entries, write_bytes
from lit_llm.checkpoint.hf.architectures import to_hf_config
from lit_llm.checkpoint.hf.names import to_hf
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.plain import gpt_from_plain, lora_from_plain
from lit_llm.checkpoint.safetensors_file import write_tensors
from lit_llm.checkpoint.training_state import tensor_bytes
from lit_llm.checkpoint.verification import see_whole
from lit_llm.model.lora import Lora

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def to_peft(source: Path, target: Path, *, base: str | None = None) -> list[str]:
    """Write the adapters of a LoRA run for peft.

    Args:
        source: a checkpoint of adapters, as `lit_llm.checkpoint.find.resolve` gives it
        target: where to; nothing may stand there
        base: where users of the adapters find their base, such as a name on the Hugging Face hub
            or the folder that it was exported to; None leaves that to them

    Returns:
        What the user should know.

    Raises:
        CheckpointError: the source is damaged or holds no adapters, or something stands at
            `target`.
        ValueError: the network has no counterpart in transformers.
    """
    meta = read_meta(source)
    if not is_adapted(meta):
        raise CheckpointError(f"{source} holds no adapters: give a checkpoint of a LoRA run")
    if meta.get("bidirectional"):
        raise ValueError(f"{source} is a masked model, which no Llama is: peft could not load it")
    lora = lora_from_plain(meta[LORA])
    if lora.whole:
        raise ValueError(
            f"{source} has learned {', '.join(lora.whole)} as a whole (lora.whole), and only "
            "adapters are written for peft: merge them by --to checkpoint"
        )
    to_hf_config(gpt_from_plain(meta["model"]), torch.float32)  # refuses what no family has
    see_whole(source)
    weights = {_their_name(name): w for name, w in own_weights(source, meta).items()}
    if bad := [name for name, w in weights.items() if not bool(w.isfinite().all())]:
        raise ValueError(f"{bad[0]} holds NaN or infinity: the run diverged, use another one")
    config = _config(lora, weights, base)

    def write(folder: Path) -> Entries:
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        return {
            CONFIG: write_bytes(folder / CONFIG, text.encode()),
            WEIGHTS: write_tensors(folder / WEIGHTS, weights),
        }

    write_folder(target, write, bytes_needed=tensor_bytes(weights))
    if base is not None:
        return []
    return [f"load them over the weights of {meta[BASE]['absolute']}; --base NAME would say so"]


def _their_name(name: str) -> str:
    """Such as base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight."""
    layer, _, adapter = name.rpartition(".")
    try:
        theirs = to_hf(f"{layer}.weight").removesuffix(".weight")
    except KeyError:
        raise ValueError(f"{name} has no counterpart in transformers: merge the adapters") from None
    return f"base_model.model.{theirs}.{adapter}.weight"


def _config(lora: Lora, weights: dict[str, Tensor], base: str | None) -> dict[str, Any]:
    """What peft's LoraConfig needs to know; the rest are its defaults."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": sorted({name.split(".")[-3] for name in weights}),
        "bias": "none",
        "inference_mode": True,
    }
