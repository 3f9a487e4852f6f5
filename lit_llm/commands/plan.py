"""plan: what a run needs, said before it begins: memory, time, and the trainer file to take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from lit_llm.commands.compose import Configuration
from lit_llm.commands.parser import flag_value, read, refuse_linked
from lit_llm.commands.plan_keys import SHARDED, parse
from lit_llm.commands.plan_text import lines
from lit_llm.commands.precision import auto_precision
from lit_llm.objective import CausalLM
from lit_llm.planning.devices import MEMORY, Device, device_here, device_named
from lit_llm.planning.plan import Run, plan_run
from lit_llm.planning.sharding import Spread
from lit_llm.planning.trace import Job
from lit_llm.tokenizer import SPECIAL, load_tokenizer

HELP = """usage: python cli.py plan [-c FILE]... [--key VALUE]...

What a run would need, without running it: the configuration and flags of fit, and
  --gpu NAME       plan for this device instead of the one in this machine:
                   {devices}
  --devices N      of each node (else as trainer.devices says)
  --nodes N        machines (else as trainer.num_nodes says)
  --mfu SHARE      of the device's peak that is reached, for the hours; {mfu} if not given
  --vocab_size N   where the tokenizer does not say how many ids it will have
  --json           the same as JSON"""

PRECISIONS = {
    "16-mixed": ("16-mixed", "16"),
    "bf16-mixed": ("bf16-mixed", "bf16"),
    "32-true": ("32-true", "32", "None"),
    "64-true": ("64-true", "64"),
    "bf16-true": ("bf16-true",),
    "16-true": ("16-true",),
}


@dataclass
class Options:
    """Flags of plan's own."""

    gpu: str | None = None
    devices: int | None = None
    nodes: int | None = None
    mfu: float = 0.4
    vocab_size: int | None = None
    json: bool = False


def run(command: str, arguments: list[str]) -> None:
    """Run plan; takes the same configuration as fit."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP.format(devices=", ".join(MEMORY), mfu=Options.mfu))
        return
    options, arguments = take_options(arguments)
    plan = plan_run(read_run(options, arguments))
    print(json.dumps(asdict(plan), indent=2) if options.json else "\n".join(lines(plan)))


def take_options(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Take plan's own flags out of a command line.

    Raises:
        ValueError: one of them lacks its value, or has one that cannot be.
    """
    options, rest, words = Options(), [], iter(arguments)
    kinds: dict[str, type] = {"gpu": str, "mfu": float}
    kinds |= dict.fromkeys(("devices", "nodes", "vocab_size"), int)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word == "--json":
            options.json = True
        elif word.startswith("--") and name in kinds:
            text = value if equals else next(words, "")
            setattr(options, name, _value(name, text, kinds[name]))
        else:
            rest.append(word)
    if options.mfu > 1:
        raise ValueError(f"--mfu={options.mfu} is a share of the peak: give 0.4 for 40%")
    return options, rest


def _value(name: str, text: str, kind: type) -> Any:
    if not text or text.startswith("--"):
        raise ValueError(f"--{name}: needs a value")
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"--{name}: expected {kind.__name__}, got {text!r}") from None
    if kind is not str and value <= 0:
        raise ValueError(f"--{name}={text}: give a value above 0")
    return value


def read_run(options: Options, arguments: Sequence[str]) -> Run:
    """What `plan_run` wants to know, from the command line of fit.

    Raises:
        ValueError: a key or value is wrong, or the vocabulary's size cannot be known.
    """
    configuration, flags = read(arguments)
    refuse_linked(configuration)
    _adopt_checkpoint(configuration, flags)
    return _run_of(parse(configuration, flags), options)


def _adopt_checkpoint(configuration: Configuration, flags: list[str]) -> None:
    model = configuration.values.get("model")
    given = model.get("init_from") if isinstance(model, dict) else None
    if (flag_value(flags, "model.init_from") or given) not in (None, "null"):
        from lit_llm.commands.fit import adopt_checkpoint

        adopt_checkpoint(configuration, flags)


def _run_of(config: Namespace, options: Options) -> Run:
    model, data, trainer = config.model, config.data.init_args, config.trainer
    device = device_named(options.gpu) if options.gpu else device_here(str(trainer.accelerator))
    nodes = options.nodes or trainer.num_nodes
    devices = options.devices or _count(trainer.devices, here=not options.gpu)
    strategy = trainer.strategy
    arguments = strategy.init_args if isinstance(strategy, Namespace) else None
    param_dtype = arguments.param_dtype if isinstance(arguments, Namespace) else None
    if model.lora is not None and model.init_from is None:
        raise ValueError(
            "model.lora adapts trained weights, but model.init_from is null: give the checkpoint "
            "that it is to start from, or remove model.lora"
        )
    gpt = replace(model.gpt, vocab_size=_vocab_size(model, data, options), max_seq_len=data.seq_len)
    job = Job(
        gpt=gpt,
        objective=model.objective or CausalLM(),
        optimizer=model.optimizer,
        groups=model.groups,
        seq_len=data.seq_len,
        precision=_precision(str(trainer.precision), device, gpt.d_model),
        param_dtype=getattr(torch, param_dtype) if param_dtype else None,
        activation_checkpointing=int(model.activation_checkpointing),
        lora=model.lora,
        compile=bool(model.compile),
        special={name: id for id, name in enumerate(SPECIAL)},
    )
    return Run(
        job=job,
        device=device,
        spread=_spread(strategy, arguments, devices, nodes),
        nodes=nodes,
        global_batch_size=data.global_batch_size,
        micro_batch_size=data.micro_batch_size,
        max_steps=trainer.max_steps,
        mfu=options.mfu,
    )


def _vocab_size(model: Namespace, data: Namespace, options: Options) -> int:
    if options.vocab_size:
        return options.vocab_size
    if model.init_from:
        return load_tokenizer(Path(model.init_from)).vocab_size
    tokenizer = data.tokenizer
    if tokenizer is None:
        raise ValueError(
            "there is no tokenizer, so nobody knows how many token ids there are: "
            "give data.tokenizer, or --vocab_size N"
        )
    size = tokenizer.vocab_size if tokenizer.trained else tokenizer.recipe().get("vocab_size")
    if not isinstance(size, int):
        raise ValueError(
            f"how many ids {type(tokenizer).__name__} will have is not known before it is "
            "trained: give --vocab_size N"
        )
    return size


def _precision(given: str, device: Device, d_model: int) -> str:
    if given == "auto":
        if device.is_gpu:
            return "bf16-mixed"  # all of the table compute in bfloat16
        return auto_precision("cpu", d_model)[0]
    for name, spellings in PRECISIONS.items():
        if given in spellings:
            return name
    raise ValueError(f"--trainer.precision: there is no {given!r}: use {', '.join(PRECISIONS)}")


def _count(devices: Any, here: bool) -> int:
    """Devices of a node that the trainer would take; `here`: on this machine."""
    if devices in ("auto", -1, "-1", None):
        return max(1, torch.cuda.device_count()) if here else 1
    if isinstance(devices, list):
        return len(devices)
    parts = [part for part in str(devices).split(",") if part.strip()]
    return len(parts) if len(parts) > 1 else int(parts[0])


def _spread(strategy: Any, arguments: Any, devices: int, nodes: int) -> Spread:
    """How the configuration would spread a run.

    Raises:
        ValueError: a strategy that plan does not know, or a mesh that does not come out.
    """
    world = devices * nodes
    name = strategy.class_path if isinstance(strategy, Namespace) else str(strategy)
    if name == SHARDED:
        tensor, replicate = arguments.tensor_parallel, arguments.replicate
        tensor = devices if tensor == "auto" else tensor
        replicate = nodes if replicate == "auto" else replicate
        shard, rest = divmod(world, tensor * replicate)
        if rest or not shard:
            raise ValueError(
                f"{world} devices are no multiple of tensor_parallel={tensor} x "
                f"replicate={replicate}: give another --devices, or change these"
            )
        return Spread(
            strategy="sharded",
            replicate=replicate,
            shard=shard,
            tensor=tensor,
            reduce_each_micro_batch=arguments.reduce_each_micro_batch,
        )
    if name in ("auto", "None") or "ddp" in name.lower() or "SingleDevice" in name:
        return Spread() if world == 1 else Spread(strategy="ddp", replicate=world)
    raise ValueError(
        f"trainer.strategy={name}: plan knows ddp and lit_llm.training.strategy.Sharded; "
        "see configs/trainer/"
    )
