"""From which checkpoint a command starts, and what it takes from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lit_llm.checkpoint.bundle import read_meta
from lit_llm.checkpoint.find import LAST, checkpoints, resolve
from lit_llm.checkpoint.folder import clean_leftovers
from lit_llm.commands.compose import Configuration, merge
from lit_llm.commands.parser import flag_value
from lit_llm.commands.processes import is_first_process, say

NOT_FOR_VALIDATION = ("logger", "callbacks", "profiler", "max_steps", "overfit_batches")
"""Keys of a run's trainer that say how it trained, and nothing about its validation."""


def adopt_checkpoint(configuration: Configuration, flags: list[str]) -> None:
    """Let `model.init_from` supply the network's sizes, beneath whatever the user gave.

    A size that the user gives all the same stays, and then the weights do not fit: an error that
    names the first that does not.
    """
    init_from = flag_value(flags, "model.init_from")
    model = configuration.values.get("model") or {}
    if not isinstance(model, dict):
        raise ValueError(f"{configuration.origin['model']}: model holds keys, got {model!r}")
    init_from = init_from or model.get("init_from")
    if init_from in (None, "null"):
        return
    folder = resolve(init_from)
    network = read_meta(folder)["model"]
    for linked in ("vocab_size", "max_seq_len"):
        network.pop(linked)
    configuration.values = merge({"model": {"gpt": network}}, configuration.values)
    flags += ["--model.init_from", str(folder)]


def adopt_run(configuration: Configuration, flags: list[str]) -> None:
    """Let the checkpoint that is to be validated supply its run's configuration.

    It goes beneath whatever the user gave, so `validate --ckpt_path X` needs nothing else, and
    other data, devices or limits are a flag or a file away.

    Raises:
        ValueError: "last" is asked for without a run whose last it is; no such checkpoint.
    """
    which = flag_value(flags, "ckpt_path") or configuration.values.get("ckpt_path")
    if which is None:
        return
    if which == LAST:
        if "run" not in configuration.values and flag_value(flags, "run") is None:
            raise ValueError(
                '--ckpt_path last: of which run? Give the path of the run, such as '
                "--ckpt_path checkpoints/quickstart/pretrain, or its recipe with -c"
            )
        return
    folder = resolve(which)
    config: dict[str, Any] = read_meta(folder)["config"]
    trainer = {
        key: value
        for key, value in (config.get("trainer") or {}).items()
        if key not in NOT_FOR_VALIDATION
    }
    model = dict(config.get("model") or {})
    if model.get("init_from"):
        model["init_from"] = str(folder)  # sizes and tokenizer; what it began with may be gone
    base = {**config, "trainer": trainer, "model": model}
    configuration.values = merge(base, configuration.values)


def where_to_start(
    run_dir: Path, ckpt_path: str | None, *, overwrite: bool, fast_dev_run: Any, max_steps: int
) -> str | None:
    """The checkpoint that `fit` continues from, or None for a run that does not exist yet.

    Says what it chose, and removes what a killed save left behind.

    Raises:
        ValueError: the run exists and nothing says what is to become of it, or there is no such
            checkpoint.
    """
    chosen_by_name = ckpt_path not in (None, LAST)
    if fast_dev_run and not chosen_by_name:
        return None  # writes nothing, so whatever the folder holds is safe
    anew = overwrite and not chosen_by_name
    if is_first_process():
        clean_leftovers(run_dir)
        if anew:
            shutil.rmtree(run_dir, ignore_errors=True)
    # Another process may look before the first has removed what there was.
    there = [] if anew else checkpoints(run_dir)
    if not there and not chosen_by_name:
        if ckpt_path == LAST and not anew:
            say(f"{run_dir} holds no checkpoint yet: starting at step 0")
        return None
    if ckpt_path is None:
        raise ValueError(
            f"{run_dir} already holds a run ({there[-1].name}).\n"
            "Add --ckpt_path last to continue it, --run NAME to start another one, "
            "or --overwrite true to delete it"
        )
    folder = resolve(ckpt_path, run_dir)
    step = read_meta(folder)["step"]
    chosen = "as asked for" if chosen_by_name else "the newest that is whole"
    say(f"going on from {folder} ({chosen}), step {step} of {max_steps}")
    return str(folder)
