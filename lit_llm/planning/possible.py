"""Networks and optimizers that cannot be built here, found before the data is read."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from lit_llm.model.config import GPTConfig
from lit_llm.model.size import size, skeleton
from lit_llm.optim.known import is_known
from lit_llm.planning.devices import machine_memory

# What PyTorch's optimizers call a setting: how it is written, and what it may be.
SPOKEN = {
    "learning rate": ("lr", "give 0 or more"),
    "epsilon": ("eps", "give 0 or more"),
    "beta": ("betas", "give numbers from 0 to below 1"),
    "weight_decay": ("weight_decay", "give 0 or more"),
    "momentum": ("momentum", "give 0 or more"),
}


def refuse_model(model: Any, nodes: int = 1) -> None:
    """Refuse a network that fits no memory here, and what its optimizer does not take.

    Args:
        model: LitLLM, before it has any weights
        nodes: machines like this one that share it

    Raises:
        ValueError: says which setting.
    """
    _refuse_size(model.gpt_config, nodes)
    if model.lora is not None:
        skeleton(replace(model.gpt_config, n_layer=1), model.lora)  # refuses what no block has
    rule = _rule(model.optimizer)
    if rule is None:
        return
    settings = _build(model.optimizer, "model.optimizer", {}).defaults
    for kind, options in (model.groups or {}).items():
        place = f"model.groups.{kind}"
        for name in options.keys() - settings.keys():  # another optimizer's: it does no harm
            if near := difflib.get_close_matches(name, settings, 1):
                raise ValueError(f"{place}.{name}: no such setting; did you mean {near[0]}?")
        # What a group may have, and what is judged where the optimizer is built.
        judged = options.keys() & settings.keys() & inspect.signature(rule).parameters.keys()
        _build(model.optimizer, place, {name: options[name] for name in judged})


def _rule(factory: Any) -> type[Optimizer] | None:
    """The class that a factory builds, if its trial is worth something.

    None for one of the user's own or of a library: it may need other groups than a trial has, or
    take in a group what it does not take when it is built.
    """
    # The command line gives a partial, with the class behind what instantiates it.
    parts = (factory.func, *factory.args) if isinstance(factory, partial) else (factory,)
    rules = [part for part in parts if isinstance(part, type) and issubclass(part, Optimizer)]
    return rules[0] if rules and is_known(rules[0]) else None


def _build(factory: Callable[..., Optimizer], place: str, options: dict[str, Any]) -> Optimizer:
    """An optimizer of one number, which has the chance to refuse its settings."""
    group = {"params": [torch.nn.Parameter(torch.zeros(1, 1))], "kind": "matrix"}
    try:
        return factory([group], **options)
    except (ValueError, TypeError) as error:
        reason = re.sub(r"^\w+\.__init__\(\) (got an )?", "", str(error))
        raise ValueError(_with_remedy(place, reason)) from None


def _with_remedy(place: str, reason: str) -> str:
    """What an optimizer refuses, with the key and what to give: ours say it themselves."""
    for words, (name, remedy) in SPOKEN.items():
        if words in reason:
            return f"{place}.{name}: {reason}; {remedy}"
    return f"{place}: {reason}" + ("" if "give" in reason else "; change or remove it")


def _refuse_size(config: GPTConfig, nodes: int) -> None:
    try:
        one, two = (size(replace(config, n_layer=n)).parameters for n in (1, 2))
        weights = one + (two - one) * (config.n_layer - 1)  # a million layers take long to build
    except RuntimeError as error:  # PyTorch counts to 2**63 bytes
        raise ValueError(f"model.gpt: no such network can be built: {error}") from None
    memory = nodes * (machine_memory() or 0)
    if memory and weights * 4 > 4 * memory:  # four: swap, and strategies that share them out
        here = "this machine has" if nodes == 1 else f"{nodes} machines like this one have"
        raise ValueError(
            f"model.gpt: {weights:,} parameters need {weights * 4 / 1e9:,.0f} GB, {here} "
            f"{memory / 1e9:,.0f} GB: see python cli.py plan for what fits"
        )
