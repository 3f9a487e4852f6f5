"""Networks and optimizers that cannot be built here, found before the data is read."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.optim import Optimizer

from lit_llm.model.config import GPTConfig
from lit_llm.model.size import size


def refuse_model(model: Any) -> None:
    """Refuse a network that fits no memory here, and what its optimizer does not take.

    Args:
        model: LitLLM, before it has any weights

    Raises:
        ValueError: says which setting.
    """
    _refuse_size(model.gpt_config)
    settings = _build(model.optimizer, "model.optimizer", {}).defaults
    for kind, options in (model.groups or {}).items():
        place = f"model.groups.{kind}"
        for name in options.keys() - settings.keys():  # another optimizer's: it does no harm
            if near := difflib.get_close_matches(name, settings, 1):
                raise ValueError(f"{place}.{name}: no such setting; did you mean {near[0]}?")
        _build(
            model.optimizer, place, {name: options[name] for name in options if name in settings}
        )


def _build(factory: Callable[..., Optimizer], place: str, options: dict[str, Any]) -> Optimizer:
    """An optimizer of one number, which has the chance to refuse its settings."""
    group = {"params": [torch.nn.Parameter(torch.zeros(1, 1))], "kind": "matrix"}
    try:
        return factory([group], **options)
    except (ValueError, TypeError) as error:
        reason = re.sub(r"^\w+\.__init__\(\) (got an )?", "", str(error))
        raise ValueError(f"{place}: {reason}") from None


def _refuse_size(config: GPTConfig) -> None:
    try:
        one, two = (size(replace(config, n_layer=n)).parameters for n in (1, 2))
        weights = one + (two - one) * (config.n_layer - 1)  # a million layers take long to build
    except RuntimeError as error:  # PyTorch counts to 2**63 bytes
        raise ValueError(f"model.gpt: no such network can be built: {error}") from None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if os.name != "nt" else 0
    if memory and weights * 4 > 4 * memory:  # four: swap, and strategies that share them out
        raise ValueError(
            f"model.gpt: {weights:,} parameters need {weights * 4 / 1e9:,.0f} GB, this machine has "
            f"{memory / 1e9:,.0f} GB: see python cli.py plan for what fits"
        )
