"""Where a run runs: how many processes on how many nodes, on which device, in which precision.

What has started the processes knows their number, so `devices: auto` and `num_nodes` follow from
it: torchrun and SLURM start one process per device, and Lightning starts them itself when a
command is run by hand. What the user gave stays; if it does not agree, the run ends here.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy

from lit_llm.commands.compose import Configuration, merge, parse_value
from lit_llm.commands.parser import flag_value, where
from lit_llm.commands.precision import auto_precision, device_kind

SHARDED_ONLY = ("param_dtype", "tensor_parallel", "replicate", "reduce_each_micro_batch")
ALL = (None, "auto", -1, "-1")  # values of trainer.devices that leave the number open


@dataclass(frozen=True)
class Launcher:
    """What has started this process and others like it."""

    name: str
    """torchrun or SLURM"""
    devices: int
    """processes on each node, one per device"""
    nodes: int
    """machines"""


def launcher(environment: Mapping[str, str] = os.environ) -> Launcher | None:
    """Read what torchrun or SLURM say; None when the command was started by hand.

    Raises:
        ValueError: they started numbers of processes that nobody can train with.
    """
    if "LOCAL_WORLD_SIZE" in environment and "WORLD_SIZE" in environment:
        here, world = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        if world % here:
            raise ValueError(
                f"torchrun started {here} of {world} processes on this machine, and so another "
                "number elsewhere: give every node the same --nproc-per-node"
            )
        return Launcher("torchrun", here, world // here)
    # In a shell that SLURM opened for typing, Lightning starts the processes as everywhere else.
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    return _slurm(environment) if "SLURM_NTASKS" in environment else None


def _slurm(environment: Mapping[str, str]) -> Launcher:
    tasks, per_node = int(environment["SLURM_NTASKS"]), environment.get("SLURM_NTASKS_PER_NODE")
    in_step = any(name.startswith("SLURM_STEP") for name in environment)
    if tasks > 1 and environment.get("ENVIRONMENT") == "BATCH" and not in_step:
        raise ValueError(
            f"SLURM gave this job {tasks} tasks, but only one was started and would wait for the "
            "others: write srun before the command, as scripts/slurm.sbatch does"
        )
    if tasks > 1 and per_node is None:
        raise ValueError(
            f"SLURM started {tasks} tasks, but does not say how many on each node: "
            "give --ntasks-per-node in place of --ntasks, one task for each GPU"
        )
    names = ("SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
    nodes = int(next((environment[name] for name in names if name in environment), 1))
    devices = int(per_node or 1)
    if devices * nodes != tasks:
        raise ValueError(
            f"SLURM started {tasks} tasks, which is not --nodes={nodes} x "
            f"--ntasks-per-node={devices}: give srun and sbatch the same numbers"
        )
    return Launcher("SLURM", devices, nodes)


def settle(configuration: Configuration, flags: list[str]) -> list[str]:
    """Put in what follows from the launcher and the machine, before Lightning's parser reads it.

    Changes `trainer.devices`, `trainer.num_nodes` and `trainer.precision` where they were left
    open; `precision: auto` is ours alone.

    Returns:
        Lines that tell the user what was chosen.

    Raises:
        ValueError: the launcher started other numbers than the user gave.
    """
    if not isinstance(configuration.values.get("trainer", {}), dict):
        return []  # the parser says what is wrong with it
    _settle_strategy(configuration, flags)
    started = launcher()
    if started is not None:
        _follow(started, configuration, flags)
    d_model = _given(configuration, flags, "model.gpt.d_model")
    width = d_model if isinstance(d_model, int) else None
    return settle_precision(configuration, flags, lambda kind: auto_precision(kind, width))


def settle_precision(
    configuration: Configuration, flags: list[str], choose: Callable[[str], tuple[str, str]]
) -> list[str]:
    """Replace `trainer.precision: auto`, which trainer files say and Lightning does not know.

    Args:
        configuration: of the files
        flags: those of the command line; both are changed
        choose: precision and reason for a kind of device, see `device_kind`

    Returns:
        Lines that tell the user what was chosen.
    """
    precision = _given(configuration, flags, "trainer.precision")
    if precision == "auto":
        accelerator = _given(configuration, flags, "trainer.accelerator") or "auto"
        precision, reason = choose(device_kind(str(accelerator)))
        _put(configuration, flags, "trainer.precision", precision)
        return [f"precision {precision} (auto: {reason})"]
    if configuration.values.get("trainer", {}).get("precision") == "auto":  # a flag is against it
        _put(configuration, flags, "trainer.precision", precision)
    return []


def _follow(started: Launcher, configuration: Configuration, flags: list[str]) -> None:
    devices = _given(configuration, flags, "trainer.devices")
    if devices in ALL:
        _put(configuration, flags, "trainer.devices", started.devices)
    elif count_devices(devices) != started.devices:
        raise ValueError(
            f"{where('trainer.devices', configuration, flags)}={devices}, but {started.name} "
            f"started {started.devices} {_processes(started.devices)} on each node: "
            f"{_other_devices(started)}"
        )
    nodes = _given(configuration, flags, "trainer.num_nodes")
    if nodes is None:
        _put(configuration, flags, "trainer.num_nodes", started.nodes)
    elif nodes != started.nodes:
        raise ValueError(
            f"{where('trainer.num_nodes', configuration, flags)}={nodes}, but {started.name} "
            f"started processes on {started.nodes} node{'s' * (started.nodes > 1)}: "
            f"leave it out, or give --trainer.num_nodes {started.nodes}"
        )


def _other_devices(started: Launcher) -> str:
    if started.devices == 1:
        return "give --trainer.devices auto, or start as many processes as devices"
    return "use a trainer file for several devices, such as -c configs/trainer/ddp.yaml"


def _settle_strategy(configuration: Configuration, flags: list[str]) -> None:
    """Take a name such as ddp, or a class, from the flags: the parser would mix up the two.

    Raises:
        ValueError: there are arguments for a strategy that shards, and another strategy.
    """
    name = flag_value(flags, "trainer.strategy")
    if name is not None and re.fullmatch(r"[A-Za-z_][\w.]*", name):
        value = {"class_path": name} if "." in name else name
        _put(configuration, flags, "trainer.strategy", value)
    strategy = configuration.values.get("trainer", {}).get("strategy")
    if not isinstance(strategy, dict):
        return
    arguments = strategy.get("init_args") or {}
    sharded_only = [name for name in SHARDED_ONLY if name in arguments]
    if sharded_only and not shards(strategy.get("class_path", "")):
        file = configuration.origin.get(f"trainer.strategy.init_args.{sharded_only[0]}")
        raise ValueError(
            f"{file or 'trainer.strategy'}: {', '.join(sharded_only)} is for a strategy that "
            f"shards, not for {strategy.get('class_path', 'a name such as ddp')}: "
            "put it after a trainer file such as -c configs/trainer/fsdp.yaml"
        )


def _given(configuration: Configuration, flags: Sequence[str], key: str) -> Any:
    text = flag_value(flags, key)
    if text is not None:
        return parse_value(text)
    node: Any = configuration.values
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _put(configuration: Configuration, flags: list[str], key: str, value: Any) -> None:
    """Give `key` a value in place of whatever files and flags say."""
    kept, words = [], iter(flags)
    for word in words:
        if word == f"--{key}":
            next(words, None)
        elif not word.startswith(f"--{key}="):
            kept.append(word)
    flags[:] = kept
    for name in reversed(key.split(".")):
        value = {name: value}
    configuration.values = merge(configuration.values, value)


def count_devices(devices: Any) -> int | None:
    """How many devices the user named; None if that is no number of devices."""
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    if isinstance(devices, list):
        return len(devices)
    return int(devices) if str(devices).isdigit() else None


def _processes(count: int) -> str:
    return "process" if count == 1 else "processes"


def shards(class_path: str) -> bool:
    """Whether a class divides the model among devices."""
    module, _, name = class_path.rpartition(".")
    try:
        strategy = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return False  # the parser says so
    return isinstance(strategy, type) and issubclass(strategy, ModelParallelStrategy)
