"""Which network does a config.json describe, and how is one of ours described there?

Four families compute what GPT does, each with one thing of its own: Llama, Mistral (a sliding
window), Qwen2 (biases of q, k and v) and Qwen3 (norms of q and k). What else a config.json may ask
for is refused by its name and value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.config import GPTConfig
from lit_llm.model.mlp import SwiGLU
from lit_llm.model.rope import RopeScaling

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""model_type of config.json: how its classes in transformers begin."""

_ONLY = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),  # Llama's and Qwen3's, which would add one behind attention too
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0,),
    "rope_interleaved": (False,),
    "quantization_config": (),
}
"""What these keys may hold, besides null."""

_KV_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
_HEAD_DIM = {"qwen3": 128}
_WINDOW = {"mistral": 4096, "qwen2": 4096, "qwen3": 4096}
"""What transformers takes where config.json says nothing."""

_FULL, _SLIDING = "full_attention", "sliding_attention"


def from_hf_config(content: Mapping[str, Any]) -> GPTConfig:
    """The network that a config.json describes, with as many rows in its table as it says.

    Raises:
        ValueError: it is of another family, asks for what GPT does not compute, lacks a size, or
            contradicts itself; names the key and its value.
    """
    kind = _family(content)
    for key, allowed in _ONLY.items():
        if content.get(key) is not None and content[key] not in allowed:
            raise _unsupported(content, key, " or ".join(map(repr, allowed)) or "none")
    n_head, n_layer = _size(content, "num_attention_heads"), _size(content, "num_hidden_layers")
    rope_theta, rope_scaling = _rope(content)
    window, full_layers = _window(content, kind, n_layer)
    vocab_size = _size(content, "vocab_size")
    max_seq_len = _size(content, "max_position_embeddings")
    if window is not None and (window >= max_seq_len or full_layers == n_layer):
        window, full_layers = None, 0
    try:
        return GPTConfig(
            vocab_size=vocab_size,
            pad_vocab_to=vocab_size,  # a tokenizer with fewer ids then gets as many rows
            max_seq_len=max_seq_len,
            n_layer=n_layer,
            d_model=_size(content, "hidden_size"),
            n_head=n_head,
            n_kv_head=_size(content, "num_key_value_heads", _KV_HEADS.get(kind, n_head), n_head),
            head_dim=_size(content, "head_dim", _HEAD_DIM.get(kind), None),
            d_ff=_size(content, "intermediate_size"),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            sliding_window=window,
            full_layers=full_layers,
            norm_eps=_number(content, "rms_norm_eps", 1e-6),
            qkv_bias=kind == "qwen2",
            qk_norm=kind == "qwen3",
            tie_embeddings=content.get("tie_word_embeddings") is True,
        )
    except ValueError as error:
        raise ValueError(f"config.json contradicts itself: {error}") from None


def to_hf_config(config: GPTConfig, dtype: torch.dtype) -> dict[str, Any]:
    """A config.json for a network, without the ids of its control tokens.

    Raises:
        ValueError: no family of transformers computes what it does; says why not.
    """
    kind = _family_of(config)
    described = {
        "architectures": [f"{FAMILIES[kind]}ForCausalLM"],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.ff_dim,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.channels_per_head,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling(config.rope_scaling),
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    if kind in ("llama", "qwen3"):
        described["attention_bias"] = False
    if kind == "llama":
        described["mlp_bias"] = False
    if kind == "mistral":
        described["sliding_window"] = config.sliding_window
    if kind in ("qwen2", "qwen3"):
        described["use_sliding_window"] = config.sliding_window is not None
        described["sliding_window"] = config.sliding_window
        described["max_window_layers"] = (
            config.n_layer if config.sliding_window is None else config.full_layers
        )
    return described


def _family(content: Mapping[str, Any]) -> str:
    named = content.get("architectures")
    for kind, name in FAMILIES.items():
        if (named or [f"{name}ForCausalLM"]) == [f"{name}ForCausalLM"] and (
            content.get("model_type", kind if named else None) == kind
        ):
            return kind
    classes = [f"{name}ForCausalLM" for name in FAMILIES.values()]
    if named and (len(named) != 1 or named[0] not in classes):
        raise _unsupported(content, "architectures", ", ".join(classes))
    raise _unsupported(content, "model_type", ", ".join(FAMILIES))


def _family_of(config: GPTConfig) -> str:
    for field, ours in (("attention", GroupedQueryAttention), ("mlp", SwiGLU)):
        if getattr(config, field) is not ours:
            raise ValueError(
                f"{field}={getattr(config, field)} is a part of your own: transformers has none "
                f"such, so only networks of {ours.__name__} can be exported"
            )
    if config.qk_norm and config.qkv_bias:
        raise ValueError(
            "qk_norm and qkv_bias together: transformers has no such family; Qwen3 has the norms, "
            "Qwen2 the biases"
        )
    if config.qk_norm:
        return "qwen3"
    if config.qkv_bias:
        return "qwen2"
    if config.full_layers:
        raise ValueError(
            f"full_layers={config.full_layers} with a sliding window: of transformers' families "
            "only Qwen2 (qkv_bias) and Qwen3 (qk_norm) have both kinds of layers"
        )
    # LlamaConfig wants d_model to be a multiple of n_head, whatever head_dim is.
    fits_llama = config.sliding_window is None and config.d_model % config.n_head == 0
    return "llama" if fits_llama else "mistral"


def _rope(content: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling, as transformers writes them since version 5, or as before."""
    key = "rope_parameters" if content.get("rope_parameters") else "rope_scaling"
    said = content.get(key) or {}
    if not isinstance(said, dict):
        raise _unsupported(content, key, "an object")
    theta = said.get("rope_theta", content.get("rope_theta"))
    theta = _number({"rope_theta": theta}, "rope_theta", 10_000.0)
    kind = said.get("rope_type", said.get("type", "default"))
    if said.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise _unsupported(content, key, "no partial_rotary_factor")
    if kind in ("default", None):
        return theta, None
    try:
        if kind == "linear":
            return theta, RopeScaling(kind="linear", factor=float(said["factor"]))
        if kind == "llama3":
            return theta, RopeScaling(
                factor=float(said["factor"]),
                low_freq_factor=float(said["low_freq_factor"]),
                high_freq_factor=float(said["high_freq_factor"]),
                original_max_seq_len=int(said["original_max_position_embeddings"]),
            )
    except KeyError as error:
        raise ValueError(f"config.json: {key}={said} lacks {error.args[0]}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"config.json: {key}={said} is no scaling: {error}") from None
    raise _unsupported(content, key, "rope_type default, linear or llama3")


def _scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }


def _window(content: Mapping[str, Any], kind: str, n_layer: int) -> tuple[int | None, int]:
    """The sliding window, and how many layers before those that have it see all."""
    if kind == "llama" or (kind != "mistral" and content.get("use_sliding_window") is not True):
        if _SLIDING in (content.get("layer_types") or []):
            raise _unsupported(content, "layer_types", f"{_FULL} without a sliding window")
        return None, 0
    window = _size(content, "sliding_window", _WINDOW[kind], None)
    if kind == "mistral" or window is None:
        return window, 0
    full = content.get("max_window_layers", 28)
    full = min(full, n_layer) if isinstance(full, int) and full >= 0 else -1
    kinds = content.get("layer_types")
    if kinds:
        full = kinds.index(_SLIDING) if _SLIDING in kinds else n_layer
        if kinds != [_FULL] * full + [_SLIDING] * (n_layer - full):
            raise _unsupported(content, "layer_types", f"first {_FULL}, then {_SLIDING}")
    if full < 0:
        raise _unsupported(content, "max_window_layers", "a number of layers")
    return window, full


_REQUIRED: Any = object()


def _size(
    content: Mapping[str, Any], key: str, default: Any = _REQUIRED, of_null: Any = _REQUIRED
) -> Any:
    """A whole number above 0; what stands for a missing one, and for null."""
    value = content.get(key, default)
    if value is None and of_null is not _REQUIRED:
        return of_null
    if value is default and default is not _REQUIRED:
        return default
    if value is _REQUIRED:
        raise ValueError(f"config.json lacks {key}: the folder is not whole, download it again")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {key}={value!r} is no size: it must be 1 or more")
    return value


def _number(content: Mapping[str, Any], key: str, default: float) -> float:
    value = content.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"config.json: {key}={value!r} must be a number above 0")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"config.json: {key} has {len(str(value))} digits") from None


def _unsupported(content: Mapping[str, Any], key: str, allowed: str) -> ValueError:
    return ValueError(
        f"config.json: {key}={content.get(key)!r} is not supported (supported: {allowed})"
    )
