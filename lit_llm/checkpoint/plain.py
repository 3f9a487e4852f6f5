"""Networks and other swappable parts as plain values (what JSON can hold), and back.

A class is written as its import path, a class with settings as {"class_path", "init_args"}: the
same two forms that YAML has. Only what can be rebuilt exactly is written; the rest is refused when
a run starts, not when its checkpoint is needed.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, TypeVar, get_type_hints

from torch import nn

from lit_llm.model.attention import Attention
from lit_llm.model.config import GPTConfig
from lit_llm.model.lora import Lora
from lit_llm.model.rope import RopeScaling
from lit_llm.tokenizer.named import import_named

Part = TypeVar("Part")
_FACTORIES: dict[str, type] = {"attention": Attention, "mlp": nn.Module}  # field -> what it builds
LATER_FIELDS = {"rope_scaling": None, "sliding_window": None, "full_layers": 0, "qkv_bias": False}
"""Fields that checkpoints of earlier versions do not have, and what those networks computed."""
_TUPLE = "__tuple__"  # JSON has none, and a class may care: (1, 2) != [1, 2]


def gpt_to_plain(config: GPTConfig) -> dict[str, Any]:
    """Describe a network.

    Raises:
        ValueError: a factory cannot be described, such as a class defined inside a function.
    """
    plain = {
        field.name: _factory_to_plain(getattr(config, field.name), field.name)
        if field.name in _FACTORIES
        else getattr(config, field.name)
        for field in dataclasses.fields(config)
    }
    if config.rope_scaling is not None:
        plain["rope_scaling"] = dataclasses.asdict(config.rope_scaling)
    return plain


def gpt_from_plain(plain: dict[str, Any]) -> GPTConfig:
    """Inverse of `gpt_to_plain`: the same sizes, factories that build the same parts.

    Raises:
        ValueError: a field is unknown or missing, or a factory's class is not there any more.
    """
    known = {field.name for field in dataclasses.fields(GPTConfig)}
    plain = {**LATER_FIELDS, **plain}
    if unknown := sorted(plain.keys() - known):
        raise ValueError(f"the model's description has unknown fields: {', '.join(unknown)}")
    if missing := sorted(known - plain.keys()):
        raise ValueError(f"the model's description lacks fields: {', '.join(missing)}")
    factories = {
        name: _factory_from_plain(plain[name], name, base) for name, base in _FACTORIES.items()
    }
    scaling = plain["rope_scaling"]
    if scaling is not None:
        scaling = RopeScaling(**scaling)
    return GPTConfig(**{**plain, **factories, "rope_scaling": scaling})


def lora_from_plain(plain: dict[str, Any]) -> Lora:
    """Inverse of `dataclasses.asdict`.

    Raises:
        ValueError: a field is unknown or missing, or a value is none that it may have.
    """
    known = {field.name for field in dataclasses.fields(Lora)}
    if missing := sorted(known - plain.keys()):
        raise ValueError(f"the description of adapters lacks fields: {', '.join(missing)}")
    if unknown := sorted(plain.keys() - known):
        raise ValueError(f"the description of adapters has unknown fields: {', '.join(unknown)}")
    return Lora(**plain)


def part_to_plain(part: object) -> dict[str, Any]:
    """Describe an object, such as an objective, by its class and the arguments of its __init__.

    Each argument is read from the attribute of its name, as dataclasses and most classes have it.

    Raises:
        ValueError: an argument has no such attribute, or one that is no plain value.
    """
    init_args = {}
    for name, parameter in inspect.signature(type(part)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(part, name):
            raise ValueError(
                f"{type(part).__name__} does not remember its argument {name}, so a checkpoint "
                f"cannot describe it: set self.{name} in __init__"
            )
        init_args[name] = _value_to_plain(getattr(part, name), f"{type(part).__name__}.{name}")
    return {"class_path": _import_path(type(part)), "init_args": init_args}


def part_from_plain(plain: dict[str, Any], base: type[Part]) -> Part:
    """Inverse of `part_to_plain`; the class must be a `base`.

    Raises:
        ValueError: the class is not there any more, or is no `base`.
    """
    built = import_named(plain["class_path"])
    if not (isinstance(built, type) and issubclass(built, base)):
        raise ValueError(f"{plain['class_path']} is no {base.__name__}")
    return built(**_value_from_plain(plain["init_args"]))


def _factory_to_plain(factory: Callable, field: str) -> str | dict[str, Any]:
    built, init_args = factory, {}
    if isinstance(factory, partial):
        # jsonargparse hands over partial(its own call, its instantiator, the class, **init_args)
        built = factory.args[-1] if factory.args else factory.func
        init_args = factory.keywords
        if factory.args and (isinstance(factory.func, type) or not isinstance(built, type)):
            raise ValueError(f"{field}={factory} has positional arguments: give them by name")
    if not isinstance(built, type) and (init_args or not isinstance(built, FunctionType)):
        raise ValueError(f"{field}={built} is no class: write it as a class with init_args")
    if isinstance(built, FunctionType) and not _returns(built, _FACTORIES[field]):
        raise ValueError(
            f"{field}={built.__qualname__} does not say what it builds, so a checkpoint could not "
            f"be trusted to name it: annotate what it returns, a {_FACTORIES[field].__name__}"
        )
    path = _import_path(built)
    if not init_args:
        return path
    return {"class_path": path, "init_args": _value_to_plain(dict(init_args), f"{field}.init_args")}


def _factory_from_plain(plain: str | dict[str, Any], field: str, base: type) -> Callable:
    if isinstance(plain, str):
        plain = {"class_path": plain, "init_args": {}}
    built, init_args = import_named(plain["class_path"]), _value_from_plain(plain["init_args"])
    # What a checkpoint names is called with what it says: let that be nothing but network parts.
    if isinstance(built, FunctionType) and not init_args and _returns(built, base):
        return built
    if not (isinstance(built, type) and issubclass(built, base)):
        raise ValueError(f"{field}: {plain['class_path']} is no {base.__name__}")
    return partial(built, **init_args) if init_args else built


def _returns(function: FunctionType, base: type) -> bool:
    """Whether a function says that it builds such a part; YAML takes no other one either."""
    try:
        returned = get_type_hints(function).get("return")
    except NameError:  # annotations that only a type checker can read
        return False
    return isinstance(returned, type) and issubclass(returned, base)


def _value_to_plain(value: Any, where: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):  # no subclass: Enum, NumPy's
        return value
    if isinstance(value, list | tuple):
        items = [_value_to_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _value_to_plain(item, f"{where}.{key}") for key, item in value.items()}
    raise ValueError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot describe: "
        "take numbers, strings, lists and dicts as arguments"
    )


def _value_from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_value_from_plain(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(_value_from_plain(item) for item in value[_TUPLE])
        return {key: _value_from_plain(item) for key, item in value.items()}
    return value


def _import_path(built: Any) -> str:
    path = f"{built.__module__}.{built.__qualname__}"
    importable = built.__module__ != "__main__" and "." not in built.__qualname__
    if not importable or import_named(path) is not built:
        raise ValueError(
            f"{path} cannot be imported where the checkpoint is used: "
            "define it at the top level of a module"
        )
    return path
