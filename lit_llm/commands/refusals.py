"""What a machine or a Trainer cannot do, said in a line before anything is trained."""

from __future__ import annotations

import difflib
import os
import re
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import StrategyRegistry

from lit_llm.commands.launch import ALL, count_devices, launcher, shards
from lit_llm.commands.precision import device_kind

# What PyTorch trains on by itself; Lightning knows further ones that need packages of their own.
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def refuse_early(trainer: Namespace, *, compile: Any = False) -> None:
    """Refuse what this machine cannot do, before the data is prepared.

    Args:
        trainer: its settings
        compile: `model.compile`

    Raises:
        ValueError: no such GPU here, a precision that device or strategy do not have, or blocks
            that are both split and compiled.
    """
    accelerator, precision = str(trainer["accelerator"]), str(trainer["precision"])
    kind = device_kind(accelerator)
    has_cuda = torch.cuda.is_available()
    if kind == "gpu" or (kind == "cuda" and not has_cuda):
        build = "" if torch.version.cuda or torch.version.hip else " (it was built without CUDA)"
        raise ValueError(
            f"trainer.accelerator={accelerator}, but PyTorch finds no GPU on this machine{build}: "
            "use -c configs/trainer/cpu.yaml, or a file that says accelerator: auto"
        )
    count = None if trainer["devices"] in ALL else count_devices(trainer["devices"])
    if kind == "cuda" and (count or 0) > torch.cuda.device_count():
        there, started = torch.cuda.device_count(), launcher()
        asked = f"trainer.devices={count}"
        if started is not None:
            asked = f"{started.name} started {count} processes on this machine"
        raise ValueError(
            f"{asked}, but PyTorch sees {there} GPU{'s' * (there > 1)} here: start one process "
            "per GPU; under SLURM ask for --gpus-per-node and not --gpus-per-task"
        )
    if precision in ("16-mixed", "16") and kind == "cpu":
        raise ValueError(  # Lightning would take bf16-mixed instead
            f"trainer.precision={precision} needs a GPU, but this run is on a CPU: "
            "give 32-true or bf16-mixed"
        )
    strategy = trainer["strategy"]
    if not (isinstance(strategy, Namespace) and shards(strategy["class_path"])):
        return
    if precision in ("16-mixed", "16"):
        raise ValueError(
            f"trainer.precision={precision} does not work with a strategy that shards: "
            "give bf16-mixed or 32-true, or use -c configs/trainer/ddp.yaml"
        )
    if compile and strategy.get("init_args", Namespace()).get("tensor_parallel", 1) != 1:
        raise ValueError(  # on one device too: the same files would start and then end elsewhere
            "model.compile=true with a strategy that has tensor_parallel: torch cannot compile "
            "blocks that are split yet. Give --model.compile false, or a trainer file such as "
            "configs/trainer/fsdp.yaml"
        )
    param_dtype = strategy.get("init_args", Namespace()).get("param_dtype")
    if param_dtype is not None and precision != "32-true":
        raise ValueError(
            f"param_dtype={param_dtype} with trainer.precision={precision}: both say what is "
            "computed in. Give --trainer.precision 32-true with it, or leave it out"
        )


def refuse_lonely(trainer: Trainer) -> None:
    """Refuse processes that would not train together, or not as they were asked to.

    Raises:
        ValueError: independent trainings, a node without others, a mesh that does not come out.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if trainer.world_size == 1 and started > 1:
        raise ValueError(
            f"{started} processes were started, but the trainer knows of one: each would train "
            "a model of its own.\nUse a trainer file for several devices, such as "
            "-c configs/trainer/ddp.yaml"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    by_hand = isinstance(environment, LightningEnvironment) and "NODE_RANK" not in os.environ
    if trainer.num_nodes > 1 and by_hand:
        raise ValueError(
            f"trainer.num_nodes={trainer.num_nodes}, but this process was started alone and "
            "would wait for the others: start it with scripts/torchrun.sh or scripts/slurm.sbatch"
        )
    if hasattr(trainer.strategy, "mesh_shape"):
        trainer.strategy.mesh_shape()


def trainer_refusal(trainer: Namespace, error: Exception) -> str:
    """What Lightning's Trainer refused, in the user's words."""
    strategies = ["auto", *StrategyRegistry.available_strategies()]
    if isinstance(trainer["strategy"], str) and trainer["strategy"] not in strategies:
        near = difflib.get_close_matches(trainer["strategy"], strategies, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(strategies)}"
        return f"--trainer.strategy: there is no {trainer['strategy']!r}{hint}"
    reason, devices = " ".join(str(error).split()), str(trainer["devices"])
    if trainer["accelerator"] not in ACCELERATORS:
        return f"trainer.accelerator={trainer['accelerator']}: give auto, cpu or gpu ({reason})"
    if devices == "[]" or (
        re.fullmatch(r"-?\d+", devices) and int(devices) < 1 and devices != "-1"
    ):
        return f"trainer.devices={devices}: give 1 or more, or auto ({reason})"
    given = ("accelerator", "devices", "strategy", "precision")
    settings = ", ".join(f"trainer.{name}={trainer[name]}" for name in given)
    return f"trainer: {reason}\n(with {settings}: see configs/trainer/ for what goes together)"
