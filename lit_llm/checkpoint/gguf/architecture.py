"""Which of llama.cpp's networks computes what ours does?

| ours                        | llama.cpp's | its RoPE turns                  |
|---|---|---|
| plain                       | llama       | channels 2i and 2i + 1          |
| qkv_bias                    | qwen2       | channels i and i + E/2, as ours |
| qk_norm, perhaps qkv_bias   | qwen3       | channels i and i + E/2, as ours |

What none of them computes is refused: a file that computes something else would not be the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_llm.checkpoint.gguf.file import Metadata
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.config import GPTConfig
from lit_llm.model.mlp import SwiGLU

REMEDY = "export --to checkpoint keeps all of it"


def architecture(config: GPTConfig) -> str:
    """Name of llama.cpp's network."""
    if config.qk_norm:
        return "qwen3"
    return "qwen2" if config.qkv_bias else "llama"


def sizes(config: GPTConfig) -> Metadata:
    """The network as llama.cpp's metadata describe it."""
    name, head_dim = architecture(config), config.channels_per_head
    values: Metadata = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_seq_len,
        "embedding_length": config.d_model,
        "block_count": config.n_layer,
        "feed_forward_length": config.ff_dim,
        "attention.head_count": config.n_head,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "rope.dimension_count": head_dim,
        "rope.freq_base": float(config.rope_theta),
    }
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        values["rope.scaling.type"] = "linear"
        values["rope.scaling.factor"] = float(config.rope_scaling.factor)
    return {f"{name}.{key}": value for key, value in values.items()}


def refuse_others(config: GPTConfig, meta: Mapping[str, Any]) -> None:
    """Refuse a network that llama.cpp cannot compute as we do.

    Args:
        config: the network
        meta: bundle.json

    Raises:
        ValueError: says what llama.cpp lacks.
    """
    if wrong := _difference(config, meta):
        raise ValueError(f"{wrong}; {REMEDY}")


def _difference(config: GPTConfig, meta: Mapping[str, Any]) -> str | None:
    for field, ours in (("attention", GroupedQueryAttention), ("mlp", SwiGLU)):
        if (theirs := getattr(config, field)) is not ours:
            return f"{field}={_name(theirs)} is none of llama.cpp's: it has {ours.__name__} alone"
    if meta.get("bidirectional"):
        return "a bidirectional model: these networks of llama.cpp see only what came before"
    window, layers = config.sliding_window, config.n_layer - config.full_layers
    if window is not None and window < config.max_seq_len and layers:
        return (
            f"sliding_window={window} is shorter than max_seq_len={config.max_seq_len}: "
            f"llama.cpp's {architecture(config)} has no window"
        )
    if (
        architecture(config) == "qwen2"
        and config.n_head * config.channels_per_head != config.d_model
    ):
        return (
            f"qkv_bias with {config.n_head} heads of {config.channels_per_head} channels beside "
            f"d_model={config.d_model}: llama.cpp's qwen2 splits d_model evenly"
        )
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "llama3" and architecture(config) != "llama":
        return f"rope_scaling.kind=llama3: llama.cpp's {architecture(config)} has only linear"
    return None


def _name(factory: Any) -> str:
    built = getattr(factory, "func", factory)  # a class with settings is a partial
    return getattr(built, "__qualname__", str(built))
