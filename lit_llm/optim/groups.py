"""Parameters sorted by what they are, so that each kind can have a learning rate of its own."""

from collections.abc import Mapping
from typing import Any

from torch import nn

KINDS = ("embedding", "matrix", "head", "vector")

# Weight decay pulls matrices towards zero; for the gains of a norm there is no reason to be small.
DEFAULTS: dict[str, dict[str, Any]] = {"vector": {"weight_decay": 0.0}}


def parameter_groups(
    model: nn.Module, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Sort the parameters that train into groups for an optimizer.

    Kinds: `embedding` (token table), `head` (output projection; with tied embeddings there is
    none), `matrix` (every other parameter of two or more dimensions) and `vector` (the rest).

    Args:
        model: the network
        options: per kind, what overrides the optimizer's own settings: lr, weight_decay, betas...

    Returns:
        Dicts with `params`, `kind` and the options; kinds without parameters are left out.

    Raises:
        ValueError: an option names a kind that does not exist.
    """
    options = options or {}
    if unknown := sorted(set(options) - set(KINDS)):
        raise ValueError(f"groups: {unknown[0]!r} is no kind of parameter: use {', '.join(KINDS)}")
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    members: dict[str, list[nn.Parameter]] = {kind: [] for kind in KINDS}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members[_kind(name, parameter, embeddings)].append(parameter)
    return [
        {"params": params, "kind": kind, **DEFAULTS.get(kind, {}), **options.get(kind, {})}
        for kind, params in members.items()
        if params
    ]


def _kind(name: str, parameter: nn.Parameter, embeddings: set[int]) -> str:
    if id(parameter) in embeddings:
        return "embedding"
    if parameter.dim() < 2:
        return "vector"
    return "head" if name.endswith("lm_head.weight") else "matrix"
