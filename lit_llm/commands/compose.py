"""Several YAML files merged into one configuration.

A recipe lists the `parts` it is made of, by paths relative to itself. They are merged in their
order, then come the recipe's own keys, then the next `--config`. Mappings are merged key by key;
anything else is replaced; and a part that changes its class starts without the old class's
arguments, for they mean nothing to the new one.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 3e-4 is a number, and a key given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise ValueError(f"line {line}: {key!r} is no key: give a word")
            if key in seen:
                raise ValueError(f"line {line}: key {key!r} is given twice: keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """Read one value as YAML, as flags are read."""
    return yaml.load(text, Loader=_Loader)


MOST_VALUES, DEEPEST = 100_000, 100  # of one file; ours hold some fifty, four deep
CLASS = {"class_path", "init_args", "dict_kwargs"}  # what a part with a class may hold


class Configuration:
    """The merged configuration, and for each key the file that gave it."""

    def __init__(self, files: Sequence[str | Path] = ()) -> None:
        self.values: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        for file in files:
            self._add(Path(file), ())

    def _add(self, file: Path, parents: tuple[Path, ...]) -> None:
        if _real(file) in parents:
            raise ValueError(f"{file} is a part of itself: remove it from the list of parts")
        values = _read(file)
        parts = values.pop("parts", [])
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{file}: parts must be a list of paths, got {parts!r}")
        for part in parts:
            self._add(file.parent / part, (*parents, _real(file)))
        self.values = merge(self.values, values)
        replaced = tuple(f"{key}." for key in _plain(values))  # with all that stood below it
        self.origin = {
            key: given for key, given in self.origin.items() if not key.startswith(replaced)
        }
        self.origin.update({key: os.path.normpath(file) for key in _keys(values)})

    def replace_class(self, key: str, class_path: str) -> bool:
        """Apply a flag that changes the class of a part; False if `key` holds no class.

        Args:
            key: dotted, with or without `init_args`, such as data.corpus
            class_path: what it becomes; null, true and false take the class away
        """
        node: Any = self.values
        *path, last = key.removesuffix(".class_path").split(".")
        for name in path:
            node = _child(node, name)
        node = _arguments(node)
        old = node.get(last) if isinstance(node, dict) else None
        if not isinstance(old, dict) or "class_path" not in old:
            return False
        value = parse_value(class_path)
        node[last] = merge(old, {"class_path": value}) if isinstance(value, str) else value
        return True


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Merge `new` over `old`, neither of which changes."""
    if "class_path" in old or "class_path" in new:
        if _is_several(old, new) or _is_several(new, old):
            return dict(new)  # one corpus becomes several, or several one
        old, new = _with_init_args(old), _with_init_args(new)
    if "class_path" in new and new["class_path"] != old.get("class_path", new["class_path"]):
        return dict(new)
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(key), dict)
        merged[key] = merge(old[key], value) if both else value
    return merged


def _is_several(node: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the keys are names of things, each with keys of its own, and no arguments."""
    arguments = CLASS | (other.get("init_args") or {}).keys()
    return bool(node) and not any(
        name in arguments or not isinstance(value, dict) or value.keys() & CLASS
        for name, value in node.items()
    )


def _with_init_args(node: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a class may be written without `init_args`, as in flags."""
    arguments = {key: value for key, value in node.items() if key not in CLASS}
    if not arguments:
        return node
    rest = {key: value for key, value in node.items() if key in CLASS}
    return {**rest, "init_args": merge(node.get("init_args") or {}, arguments)}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():  # a pipe would make a run wait for ever
        raise ValueError(f"{file}: no such configuration file{_nearest(file)}")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no text in UTF-8 (byte {error.start} is {error.object[error.start]:#x}): "
            "is it a YAML file? save it as UTF-8"
        ) from None
    try:
        values = yaml.load(text, Loader=_Loader)
        _refuse_endless(values)
    except RecursionError:
        raise ValueError(f"{file} is nested too deeply, or holds itself: write it out") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not valid YAML: {_one_line(error)}") from None
    except ValueError as error:
        raise ValueError(f"{file}, {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(
            f"{file} must hold keys and values, got {type(values).__name__}: write KEY: VALUE"
        )
    try:
        return _nested(values)
    except ValueError as error:
        raise ValueError(f"{file}, {error}") from None


def _refuse_endless(values: Any) -> None:
    """Refuse what a few lines of anchors can blow up to: `b: [*a, *a]`, `c: [*b, *b]`, ..."""
    count, todo = 0, [iter((values,))]
    while todo:
        for value in todo[-1]:
            count += 1
            if count > MOST_VALUES:
                raise ValueError(
                    f"it holds more than {MOST_VALUES:,} values: is it data? Name its file instead"
                )
            if isinstance(value, dict | list):
                if len(todo) > DEEPEST:
                    raise RecursionError
                todo.append(iter(value.values() if isinstance(value, dict) else value))
                break
        else:
            todo.pop()


def _real(file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError):  # a link to itself
        return file.absolute()


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Write `a.b: 1` as `a: {b: 1}`, so that both spellings merge alike."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        value = _nested(value) if isinstance(value, dict) else value
        first, *rest = str(key).split(".") if re.fullmatch(r"[\w.]+", str(key)) else [str(key)]
        for name in reversed(rest):
            value = {name: value}
        if twice := set(_leaves(nested)) & set(_leaves({first: value})):
            raise ValueError(f"key {min(twice)!r} is given twice: keep one of them")
        nested = merge(nested, {first: value})
    return nested


def _child(node: Any, name: str) -> Any:
    node = _arguments(node) if name != "init_args" else node
    return node.get(name) if isinstance(node, dict) else None


def _arguments(node: Any) -> Any:
    if isinstance(node, dict) and "class_path" in node:
        return node.get("init_args")
    return node


def _keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")


def _plain(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of what is no mapping."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _plain(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _nearest(file: Path) -> str:
    there = [str(path) for path in file.parent.glob("*.yaml")]
    match = difflib.get_close_matches(str(file), there, 1)
    if match:
        return f"; did you mean {match[0]}?"
    return "; give the path of a YAML file, such as configs/recipes/quickstart/pretrain.yaml"


def _one_line(error: yaml.YAMLError) -> str:
    text = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
    return text + ("; indent with spaces" if r"'\t'" in text else "; correct it there")
