"""The peers' networks, all of the sizes of ours; for an environment without lit-llm."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes that all peers and lit-llm have in common; the head is tied to the embedding."""

    n_layer: int
    n_head: int
    d_model: int
    d_ff: int
    vocabulary: int
    seq_len: int


def litgpt(network: Network) -> nn.Module:
    """Litgpt's GPT as a Llama; it ties no embeddings, so they are tied here."""
    from litgpt import GPT, Config

    config = Config(
        n_layer=network.n_layer,
        n_head=network.n_head,
        n_embd=network.d_model,
        intermediate_size=network.d_ff,
        block_size=network.seq_len,
        vocab_size=network.vocabulary,
        padded_vocab_size=network.vocabulary,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    model = GPT(config)
    model.apply(model._init_weights)
    model.lm_head.weight = model.transformer.wte.weight
    return model


def transformers(network: Network, **options: Any) -> Any:
    """LlamaForCausalLM with SDPA."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=network.n_layer,
        num_attention_heads=network.n_head,
        hidden_size=network.d_model,
        intermediate_size=network.d_ff,
        vocab_size=network.vocabulary,
        max_position_embeddings=network.seq_len,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
        **options,
    )
    return LlamaForCausalLM(config)


def nanogpt(checkout: str | Path | None) -> ModuleType:
    """`model.py` of a checkout.

    Raises:
        SystemExit: it is no checkout of nanoGPT.
    """
    path = Path(checkout or "", "model.py")
    if not checkout or not path.exists():
        raise SystemExit("error: NANOGPT names no checkout of karpathy/nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["nanogpt_model"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
