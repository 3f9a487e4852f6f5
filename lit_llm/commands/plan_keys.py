"""The keys of fit, for a plan: read off signatures, without importing Lightning or what trains."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import Namespace, set_parsing_settings

from lit_llm.commands.compose import Configuration, merge
from lit_llm.commands.parser import FOLLOWS, Parser, explained_errors, flag_value, merged
from lit_llm.commands.signatures import outline

DATA = "lit_llm.data.module.TextData"
SHARDED = "lit_llm.training.strategy.Sharded"
# The groups of keys that fit takes beside model, data and trainer.
GROUPS = {
    "model": "lit_llm.training.module.LitLLM",
    "trainer": "lightning.pytorch.trainer.trainer.Trainer",
    "checkpoint": "lit_llm.callbacks.checkpointing.Checkpoint",
    "progress": "lit_llm.callbacks.progress.Progress",
    "throughput": "lit_llm.callbacks.throughput.Throughput",
    "samples": "lit_llm.callbacks.samples.Samples",
    "nan_guard": "lit_llm.callbacks.nan_guard.NanGuard",
    "spike_guard": "lit_llm.callbacks.spike_guard.SpikeGuard",
    "signals": "lit_llm.callbacks.signals.Signals",
    "watchdog": "lit_llm.callbacks.watchdog.Watchdog",
}
OUTLINED = ("lit_llm.", "lightning.")  # packages whose classes are read and not imported


def parse(configuration: Configuration, flags: Sequence[str]) -> Namespace:
    """The configuration with every default filled in and its parts built, but for data.

    Raises:
        ValueError: there is no such key, or it cannot have such a value.
    """
    for key, owner in FOLLOWS.items():
        if flag_value(flags, key) is not None:
            raise ValueError(f"--{key} follows from {owner}: remove it")
    flags = _settle_class(configuration, flags, "data")
    flags = _settle_class(configuration, flags, "trainer.strategy")
    with explained_errors(configuration, flags):
        parser = parser_of(configuration)
        parsed = parser.parse_args([*merged(configuration), *flags])
        parsed.data.init_args.corpus = None  # what the data is does not matter to a plan
        # Older versions of jsonargparse know the second name only.
        return (getattr(parser, "instantiate", None) or parser.instantiate_classes)(parsed)


class PlanParser(Parser):
    """Calls a key that does not exist by its full name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        pattern = r"Group '([\w.]+)' does not accept option '([\w.]+)'"
        super().error(re.sub(pattern, r"Option '\1.\2'", str(message)), ex)


def parser_of(configuration: Configuration) -> PlanParser:
    """A parser of fit's keys that imports neither Lightning nor what trains."""
    set_parsing_settings(docstring_parse_attribute_docstrings=False)  # outlines have no source
    parser = PlanParser(prog="cli.py plan")
    parser.add_argument("-c", "--config", action="config")
    parser.add_argument("--seed_everything", type=bool | int, default=1337)
    for name in ("run", "runs_dir", "ckpt_path"):
        parser.add_argument(f"--{name}", type=str | None, default=None)
    parser.add_argument("--overwrite", type=bool, default=False)
    for name, class_path in GROUPS.items():
        skip: set[str | int] = {"strategy"} if name == "trainer" else set()
        parser.add_class_arguments(outline(class_path), name, instantiate=False, skip=skip)
    for key, default in (("data", DATA), ("trainer.strategy", None)):
        node = _node(configuration, key)
        if isinstance(node, dict) or default:
            named = (node or {}).get("class_path", default)
            parser.add_argument(f"--{key}.class_path", type=str, default=named)
            if key == "data" or named == SHARDED:
                signature = _signature(key, named)
                parser.add_class_arguments(signature, f"{key}.init_args", instantiate=False)
            else:  # a strategy of Lightning, which takes arguments of PyTorch's besides its own
                parser.add_argument(f"--{key}.init_args", type=dict | None, default=None)
        else:
            parser.add_argument(f"--{key}", type=str, default="auto")
    return parser


def _signature(key: str, class_path: str | None) -> Any:
    if class_path is None:
        raise ValueError(f"{key}: there are arguments, but no class_path that takes them: give it")
    if class_path.startswith(OUTLINED):
        return outline(class_path)
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key}: class_path {class_path!r}: {error}") from None


def _settle_class(configuration: Configuration, flags: Sequence[str], key: str) -> list[str]:
    """Give a part with a class one form in files and flags: class_path and init_args.

    Returns:
        The flags, without one that names the class; it is in the configuration now.
    """
    node = _node(configuration, key)
    if isinstance(node, dict):
        inner = {k: v for k, v in node.items() if k not in ("class_path", "init_args")}
        node = {k: v for k, v in node.items() if k == "class_path"} | {
            "init_args": merge(node.get("init_args") or {}, inner)
        }
    kept, words = [], iter(flags)
    for word in words:
        name, equals, value = word.partition("=")
        if name in (f"--{key}", f"--{key}.class_path"):
            value = value if equals else next(words, "")
            old = node if isinstance(node, dict) else {}
            node = merge(old, {"class_path": value}) if "." in value else value
        elif name.startswith(f"--{key}.") and not name.startswith(f"--{key}.init_args"):
            kept.append(word.replace(f"--{key}.", f"--{key}.init_args.", 1))
        else:
            kept.append(word)
    if node is not None:
        for name in reversed(key.split(".")[1:]):
            node = {name: node}
        first = key.partition(".")[0]
        if first != key:
            node = {**configuration.values[first], **node}
        configuration.values = {**configuration.values, first: node}
    return kept


def _node(configuration: Configuration, key: str) -> Any:
    node: Any = configuration.values
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node
