"""What the Trainer's loops have to be told, because the data decides it and not the Trainer.

Lightning counts micro-batches; a run is counted in optimizer steps. The translation is here, and
with it the state of the loops after a resume.
"""

from __future__ import annotations

from typing import Any, cast

import lightning as L
from torch.optim.lr_scheduler import LambdaLR

COUNTER = ("ready", "started", "processed", "completed")


def set_accumulation(trainer: L.Trainer, accumulate: int) -> None:
    """Give the Trainer the number of micro-batches per step and count all its limits in steps.

    An epoch that ended inside a step would leave half a step to the next one. Epochs there are
    with `limit_train_batches` and `overfit_batches`, which sets it.

    Raises:
        ValueError: the user set accumulate_grad_batches; the batch sizes of data own it.
    """
    if trainer.accumulate_grad_batches not in (1, accumulate):
        raise ValueError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} is not yours to "
            "set: it follows from data.global_batch_size and data.micro_batch_size.\n"
            f"Remove it; with this data it is {accumulate}"
        )
    trainer.accumulate_grad_batches = accumulate
    if isinstance(trainer.limit_train_batches, int):
        trainer.limit_train_batches *= accumulate
    if isinstance(trainer.val_check_interval, int) and trainer.check_val_every_n_epoch is None:
        trainer.val_check_interval *= accumulate


def count_batches(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Rewrite the loops' counters in a checkpoint to those of a run that stands at its step.

    A checkpoint may come from the middle of a step (an exception) or from a run with other
    micro-batches. Its position in the data is its number of optimizer steps and nothing else, so
    the counters are made to say that, in the form of a checkpoint from the end of a batch.
    """
    batches = checkpoint["global_step"] * accumulate
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_loop.batch_progress"]
    for counter in (progress["total"], progress["current"]):
        counter.update(dict.fromkeys(COUNTER, batches))
        counter["completed"] = batches - 1  # Lightning counts a batch after its last hook
    progress["is_last_batch"] = False
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"] - 1


def apply_configured_options(trainer: L.Trainer, configured: list[dict[str, Any]]) -> list[str]:
    """Let the configuration decide over learning rates, decay and betas after a resume.

    Restoring an optimizer's state also restores its old options, whatever the configuration says.

    Args:
        trainer: after it has restored its state
        configured: options of each parameter group as the configuration gives them

    Returns:
        A line for each option that differs from the checkpoint's.
    """
    changes = []
    optimizer = trainer.optimizers[0]
    schedulers = [cast(LambdaLR, config.scheduler) for config in trainer.lr_scheduler_configs]
    for group, options in zip(optimizer.param_groups, configured, strict=True):
        before = {**group, "lr": group.get("initial_lr", group["lr"])}
        for name, value in options.items():
            if name in before and before[name] != value:
                changes.append(f"{group['kind']}: {name} {before[name]} -> {value}")
        group.update(options)
        if schedulers:
            group["initial_lr"] = options["lr"]
    for scheduler in schedulers:
        scheduler.base_lrs = [options["lr"] for options in configured]
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        for group, lr, factor in zip(
            optimizer.param_groups, scheduler.base_lrs, factors, strict=True
        ):
            group["lr"] = lr * factor
    return changes
