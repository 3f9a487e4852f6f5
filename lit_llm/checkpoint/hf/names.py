"""What is a weight called in lit-llm, and what in transformers?

The tensors are the same, one to one: q, k, v, gate and up are separate in both, and both rotate
halves of a head's channels. So a conversion renames, and computes nothing.
"""

from __future__ import annotations

import re

_OUTSIDE = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_INSIDE = {
    "norm_1": "input_layernorm",
    "norm_2": "post_attention_layernorm",
    **{f"attn.{part}_proj": f"self_attn.{part}_proj" for part in "qkvo"},
    **{f"attn.{part}_norm": f"self_attn.{part}_norm" for part in "qk"},
    **{f"mlp.{part}_proj": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}
_OUTSIDE_BACK = {theirs: ours for ours, theirs in _OUTSIDE.items()}
_INSIDE_BACK = {theirs: ours for ours, theirs in _INSIDE.items()}
_OURS = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_THEIRS = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


def to_hf(name: str) -> str:
    """Name of a weight of `GPT.state_dict()` in Llama, Mistral, Qwen2 and Qwen3.

    Raises:
        KeyError: they have no such weight.
    """
    if match := _OURS.fullmatch(name):
        layer, module, kind = match.groups()
        return f"model.layers.{layer}.{_INSIDE[module]}.{kind}"
    return _OUTSIDE[name]


def from_hf(name: str) -> str:
    """Inverse of `to_hf`.

    Raises:
        KeyError: `GPT` has no such weight.
    """
    if match := _THEIRS.fullmatch(name):
        layer, module, kind = match.groups()
        return f"blocks.{layer}.{_INSIDE_BACK[module]}.{kind}"
    return _OUTSIDE_BACK[name]
