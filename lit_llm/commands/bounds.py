"""What no run can be trained with, found in the numbers before anything is made or touched.

Most of it Lightning takes without a word: it would train nothing, or for ever, or divide by zero
at the first step that is to be logged. What a part of ours can say of itself, it says itself.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_llm.commands.compose import Configuration, parse_value
from lit_llm.commands.parser import flag_value, where
from lit_llm.optim.groups import KINDS

# Keys of a configuration that hold further keys.
GROUPS = {"model", "trainer", "checkpoint", "progress", "throughput", "samples", "sampling"}
GROUPS |= {"nan_guard", "spike_guard", "signals", "watchdog"}
METRICS = ("loss", "perplexity", "bits_per_byte")
MONITORED = tuple(f"val/{name}" for name in METRICS) + tuple(f"train/{name}" for name in METRICS)
MONITORED += ("train/grad_norm", *(f"lr/{kind}" for kind in KINDS))
# Of these no callback logs a metric of its own.
KNOWN_CALLBACKS = ("lightning.", "lit_llm.")


def refuse_flat(configuration: Configuration, flags: Sequence[str]) -> None:
    """Refuse a value where keys belong: `model: null` would silently become the defaults.

    Raises:
        ValueError: names the file and the key.
    """
    values = configuration.values
    groups = [(key, value) for key, value in values.items() if key in GROUPS]
    if isinstance(values.get("model"), dict) and "gpt" in values["model"]:
        groups.append(("model.gpt", values["model"]["gpt"]))
    if isinstance(values.get("data", {}), list | None):
        groups.append(("data", values["data"]))
    for key, value in groups:
        if not isinstance(value, dict):
            place = where(key, configuration, flags)
            raise ValueError(f"{place} holds keys, got {value!r}: give it keys, or leave it out")


def refuse_seed(configuration: Configuration, flags: Sequence[str]) -> None:
    """Refuse a seed that NumPy does not take.

    Raises:
        ValueError: it is no number from 0 to 2**32 - 1.
    """
    text = flag_value(flags, "seed_everything")
    seed = configuration.values.get("seed_everything", 0) if text is None else parse_value(text)
    if isinstance(seed, bool) or (isinstance(seed, int) and not 0 <= seed < 2**32):
        place = where("seed_everything", configuration, flags)
        raise ValueError(f"{place}={seed}: give a number from 0 to {2**32 - 1}")


def refuse_bounds(config: Namespace) -> None:
    """Refuse numbers and names of a run that cannot be meant.

    Args:
        config: of `fit`, parsed, before any of its classes is built

    Raises:
        ValueError: says which key, what it holds, and what to give.
    """
    trainer, data = config["trainer"], config["data"].get("init_args") or Namespace()
    _refuse_trainer(trainer)
    for key in ("num_workers", "prepare_workers"):
        _refuse(f"data.{key}", data.get(key), lambda n: n < 0, "give 0 or more")
    for key, monitor in _monitors(config):
        _refuse_monitor(key, monitor, trainer, data)
    refuse_run_name(config["run"])
    if not trainer["fast_dev_run"]:
        refuse_place("runs_dir", Path(config["runs_dir"]) / config["run"])


def _refuse_trainer(trainer: Namespace) -> None:
    no_epochs = "the data has no end, so there are no epochs: "
    cut = trainer["limit_train_batches"] is not None or trainer["overfit_batches"]
    steps = trainer["max_steps"]
    for key, is_wrong, remedy in (
        ("max_steps", lambda n: n == 0 or n < -1, "give 1 or more"),
        ("min_steps", lambda n: 0 < steps < n, f"more than trainer.max_steps={steps}: lower it"),
        ("max_epochs", lambda n: n != -1 and not (cut and n > 0), no_epochs + "give max_steps"),
        (
            "check_val_every_n_epoch",
            lambda n: not (cut and n > 0),
            no_epochs + "give val_check_interval in steps",
        ),
        ("reload_dataloaders_every_n_epochs", lambda n: n != 0, no_epochs + "leave it out"),
        ("gradient_clip_val", lambda n: n < 0, "give a norm above 0, or 0 or null for none"),
        ("log_every_n_steps", lambda n: n < 1, "give 1 or more"),
        ("val_check_interval", lambda n: n == 0, "give 1 or more, or limit_val_batches: 0"),
        ("limit_train_batches", lambda n: n == 0, "nothing would be trained: give 1 or more"),
        ("use_distributed_sampler", bool, "the order of samples is the run's own: leave it out"),
    ):
        _refuse(f"trainer.{key}", trainer.get(key), is_wrong, remedy)


def _refuse(key: str, value: Any, is_wrong: Callable[[Any], bool], remedy: str) -> None:
    if isinstance(value, int | float) and is_wrong(value):
        raise ValueError(f"{key}={value}: {remedy}")


def _monitors(config: Namespace) -> Iterator[tuple[str, str]]:
    """Yield the metrics that checkpoints and callbacks wait for, with their keys."""
    if monitor := config["checkpoint"].get("monitor"):
        yield "checkpoint.monitor", monitor
    callbacks = config["trainer"]["callbacks"]
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        arguments = callback.get("init_args") if isinstance(callback, Namespace) else None
        if arguments and isinstance(arguments.get("monitor"), str):
            yield f"trainer.callbacks: {callback['class_path']}.monitor", arguments["monitor"]


def _refuse_monitor(key: str, monitor: str, trainer: Namespace, data: Namespace) -> None:
    """Callbacks may log more: refuse only what is almost one of ours, and with the user's no name.

    Then the one that waits says at the first validation what there is.
    """
    callbacks = trainer["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    names = [callback["class_path"] for callback in callbacks if isinstance(callback, Namespace)]
    theirs = any("." in name and not name.startswith(KNOWN_CALLBACKS) for name in names)
    near = difflib.get_close_matches(monitor, MONITORED, 1, 0.8)
    if monitor not in MONITORED and not theirs and (near or not names):
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(MONITORED)}"
        raise ValueError(f"{key}={monitor}: no such metric; {hint}")
    none = trainer["limit_val_batches"] == 0 or data.get("val_fraction") == 0
    if monitor.startswith("val/") and none:
        raise ValueError(f"{key}={monitor}, but nothing is kept for validation: set val_fraction")


def refuse_run_name(name: str) -> None:
    """Refuse a run whose folder would not be one below `runs_dir`.

    Raises:
        ValueError: it is empty, absolute, leads out of runs_dir, or is no name for a folder.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ValueError(
            f"run={name!r} is no folder below runs_dir: give a name such as quickstart/pretrain"
        )
    if max(len(part.encode()) for part in parts) > 200:  # of the 255 that file systems allow
        raise ValueError(f"run={name[:40]}... is too long for a folder: give up to 200 characters")


def refuse_place(key: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written, and leave nothing behind.

    Raises:
        ValueError: names what stands in the way.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{key}: {there} is a file and no folder: give another place")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise ValueError(
            f"{key}: {there} cannot be written ({reason}): give another place"
        ) from None
