"""Which configurations are plainly right, told without importing what they configure?

A key is plainly right if the signature of what it sets, read from its source, has it and takes such
a value; numbers are above 0. Where that cannot be told, with classes of the user's, a strategy with
arguments, anything unusual, the answer is no, and `fit`'s own parser decides: so this may only ever
be too strict. The keys of data are parsed here and give the parts of a preparation.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

from jsonargparse import Namespace

from lit_llm.commands.compose import Configuration, merge, parse_value
from lit_llm.commands.parser import Parser, merged, refuse_linked, refuse_masked
from lit_llm.commands.plain_arguments import FOLLOW, parameters, takes
from lit_llm.commands.plan_keys import DATA, GROUPS
from lit_llm.commands.signatures import outline
from lit_llm.data.source import Source

GPT = "lit_llm.model.config.GPTConfig"
CLASSES = {
    "model.optimizer": ("torch.optim.AdamW", "lit_llm.optim.Muon"),
    "model.schedule": (
        *("lit_llm.optim.Constant", "lit_llm.optim.Linear"),
        *("lit_llm.optim.WarmupCosine", "lit_llm.optim.WarmupStableDecay"),
    ),
    "model.objective": ("lit_llm.objective.CausalLM", "lit_llm.objective.MaskedLM"),
}
"""Of the parts that have a class, those known here."""

NAMES = {"run": str, "runs_dir": str, "ckpt_path": str, "overwrite": bool}
PRECISIONS = ("auto", "32-true", "bf16-mixed", "bf16-true")


def plain_data(configuration: Configuration, flags: Sequence[str]) -> dict[str, Any] | None:
    """The arguments of a `Source`, if all of a configuration is plainly right; else None.

    Raises:
        Exception: something is wrong with it, or cannot be read here.
    """
    refuse_linked(configuration)
    refuse_masked(configuration, flags)
    values = configuration.values
    data = values.get("data")
    if isinstance(data, dict) and data.get("class_path") not in (None, DATA):
        return None
    rest = {key: value for key, value in values.items() if key != "data"}
    of_data = []
    for key, text in _pairs(flags):
        if key.partition(".")[0] == "data":
            of_data.append((key, text))
            continue
        value: Any = parse_value(text)
        for name in reversed(key.split(".")):
            value = {name: value}
        rest = merge(rest, value)
    if not all(_is_plain(key, value) for key, value in rest.items()):
        return None
    return _parsed(data, of_data)


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield key and text of each flag."""
    words = iter(flags)
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key or key.endswith("+"):
            raise ValueError(f"{word} is no plain flag")
        text = text if equals else next(words)
        if not equals and text.startswith("--"):
            raise ValueError(f"{word} has no value")
        yield key, text


def _parsed(data: Any, flags: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
    """Let jsonargparse read the keys of data, and build its corpora and its tokenizer."""
    node: dict[str, Any] = {"init_args": {}}
    if data is not None:
        inner = {key: value for key, value in data.items() if key not in node | {"class_path": 0}}
        node = {"init_args": merge(data.get("init_args") or {}, inner)}
    named = [] if data is None else [data.get("class_path")]
    words, given = [], list(_leaves(node["init_args"]))
    for key, text in flags:
        if key in ("data", "data.class_path"):
            named.append(text)
        else:
            inner_key = key.removeprefix("data.").removeprefix("init_args.")
            words.append(f"--data.{inner_key}={text}")
            given.append((inner_key, parse_value(text)))
    if not named or named[-1] != DATA or not all(_is_plain_datum(*one) for one in given):
        return None
    settings = Configuration()
    settings.values = {"data": node["init_args"]}
    parser = Parser(prog="cli.py prepare")
    parser.add_argument("-c", "--config", action="config")
    parser.add_class_arguments(outline(DATA), "data", instantiate=False)
    parsed = parser.parse_args([*merged(settings), *words])
    for name in ("seq_len", "global_batch_size", "micro_batch_size"):
        size: Any = parsed.data[name]
        if size is not None and size < 1:
            return None
    # Older versions of jsonargparse know the second name only.
    built: Namespace = (getattr(parser, "instantiate", None) or parser.instantiate_classes)(parsed)
    wanted = inspect.signature(Source).parameters
    return {name: value for name, value in vars(built.data).items() if name in wanted}


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _is_plain_datum(key: str, value: Any) -> bool:
    """Whether jsonargparse takes a value of data alike in `fit`, where all of data is one class.

    There it takes no null for a number, and no list for a text.
    """
    if key.partition(".")[0] in FOLLOW:
        return False
    if value is None or isinstance(value, dict):
        return value is None and parameters(DATA).get(key, (None, ...))[1] is None
    return key != "cache_dir" or isinstance(value, str)


def _is_plain(key: str, value: Any) -> bool:
    """Whether one of the groups of keys beside data is plainly right."""
    if key in NAMES:
        return isinstance(value, NAMES[key]) or (value is None and key == "ckpt_path")
    if key == "seed_everything":
        return type(value) is int and 0 <= value < 2**32
    if key not in GROUPS or not isinstance(value, dict) or key == "spike_guard":
        return False
    if key == "trainer":
        value = {**value}
        precision = value.pop("precision", "auto")
        if precision not in PRECISIONS:
            return False
    elif key == "model":
        return _is_plain_model(dict(value))
    return takes(GROUPS[key], value)


def _is_plain_model(model: dict[str, Any]) -> bool:
    gpt = model.pop("gpt", {})
    groups = model.pop("groups", None)
    groups = {} if groups is None else groups
    for name in ("optimizer", "schedule", "objective"):
        if name not in model:
            continue
        part = model.pop(name)
        part = {"class_path": part} if isinstance(part, str) else part
        is_none = part is None and name != "optimizer"
        if not is_none and not _is_known(f"model.{name}", part):
            return False
    numbers: list[Any] = (
        [n for g in groups.values() for n in g.values()] if _is_nested(groups) else [None]
    )
    return (
        all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers)
        and isinstance(gpt, dict)
        and takes(GPT, gpt)
        and _splits(gpt)
        and takes(GROUPS["model"], model)
    )


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())


def _is_known(key: str, part: Any) -> bool:
    """Whether a part is of a class that is known, with arguments that it takes."""
    if not isinstance(part, dict) or not part.keys() <= {"class_path", "init_args"}:
        return False
    path, arguments = part.get("class_path"), part.get("init_args") or {}
    if path not in CLASSES[key] or not isinstance(arguments, dict):
        return False
    return takes(path, arguments) if key != "model.objective" else not arguments


def _splits(gpt: dict[str, Any]) -> bool:
    """Whether a network's width comes out even; a head's, and how many share keys."""
    default = {name: value for name, (_, value) in parameters(GPT).items()}
    sizes: dict[str, Any] = {**default, **gpt}
    heads = sizes["n_head"]
    width, rest = divmod(sizes["d_model"], heads)
    width, rest = (width, rest) if sizes["head_dim"] is None else (sizes["head_dim"], 0)
    return rest == 0 and width % 2 == 0 and heads % (sizes["n_kv_head"] or heads) == 0
