"""What Lightning does around every step whether anybody asked for it or not.

Around each hook of each callback it opens a context for a profiler, makes a text that names the
hook, and notes its name on the module: 90 times a step with the callbacks of `cli.py fit`, nearly
all for hooks that are empty. And it finds out in every step what cannot change in a run: whether
`training_step` wants to know the number of the batch, and who moves a batch to the device.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""Called in every step, of each callback and of the module."""


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that records nothing, without a generator for each thing it skips."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self._nothing


def make_lean(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Let the Trainer leave out of a step what changes nothing; asked once, before training.

    Of hooks it calls what is callable. So an instance gets None where its class has only
    Lightning's empty method; one that overrides it, or was given a function of its own, stays as
    it is.
    """
    for owner, base in _owners(trainer, module):
        for name in HOOKS:
            if getattr(type(owner), name) is getattr(base, name) and name not in vars(owner):
                vars(owner)[name] = None
    if type(trainer.profiler) is PassThroughProfiler:  # type: ignore[attr-defined]
        trainer.profiler = NoProfiler()  # type: ignore[attr-defined]
    movers: Any = trainer._data_connector._datahook_selector
    movers.get_instance = cache(type(movers).get_instance.__get__(movers))
    loop: Any = trainer.fit_loop.epoch_loop
    by_number = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    loop._build_kwargs = _with_number if by_number else _without_number


def _with_number(
    kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int
) -> OrderedDict[str, Any]:
    kwargs["batch"], kwargs["batch_idx"] = batch, batch_idx
    return kwargs


def _without_number(
    kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int
) -> OrderedDict[str, Any]:
    kwargs["batch"] = batch
    return kwargs


def log_again(module: L.LightningModule, metrics: Mapping[str, Tensor | float]) -> None:
    """Do what `module.log_dict(metrics)` does, at a thirtieth of its price from the second time on.

    Lightning walks through all that it keeps about a metric, twice, whenever it is logged: 0.2 ms
    for each. What it knows already takes the new value alone.
    """
    trainer = module.trainer
    hook, connector, known = module._current_fx_name, trainer._logger_connector, trainer._results
    keys = [f"{hook}.{name}" for name in metrics]
    if known is None or not all(key in known for key in keys) or connector._current_fx != hook:
        module.log_dict(metrics)
        return
    for key, value in zip(keys, metrics.values(), strict=True):
        if not isinstance(value, Tensor):
            value = torch.tensor(float(value), device=module.device)
        known.update_metrics(key, value.detach(), 1)


def restore(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Give everybody back what `make_lean` hid."""
    vars(trainer.fit_loop.epoch_loop).pop("_build_kwargs", None)
    for owner, _ in _owners(trainer, module):
        for name in HOOKS:
            if name in vars(owner) and vars(owner)[name] is None:
                del vars(owner)[name]


def _owners(trainer: L.Trainer, module: L.LightningModule) -> list[tuple[Any, type]]:
    callbacks = [(callback, L.Callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    return [(module, L.LightningModule), *callbacks]
