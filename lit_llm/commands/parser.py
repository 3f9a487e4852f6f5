"""The argument parser: merged configurations in, and errors that fit on a screen."""

from __future__ import annotations

import difflib
import importlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lit_llm.commands.compose import Configuration


class ParseError(ValueError):
    """What jsonargparse found wrong, in its own many lines."""


class Parser(LightningArgumentParser):
    """LightningCLI's parser; it raises where others print their usage and exit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # --trainer.max_step is a mistake, not a short way to say max_steps
        kwargs = {"allow_abbrev": False, "usage": "%(prog)s [-c FILE] [--key VALUE]", **kwargs}
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Only the parser that knows the key's neighbours can say which one was meant. It may be
        # one that jsonargparse has made for the arguments of a class deep in the configuration.
        names = [action.dest for action in self._actions if action.dest]
        for pattern in UNKNOWN:
            message = re.sub(pattern, lambda match: _no_such_key(match[1], names), str(message))
        raise ParseError(message)


UNKNOWN = (
    r"[Uu]nrecognized arguments?:? --([\w.]+).*",
    r"Option '([\w.]+)' is not accepted",
    r"Key '([\w.]+)' is not expected",
)


def _no_such_key(key: str, names: Sequence[str]) -> str:
    match = difflib.get_close_matches(key, names, 1, 0.5)
    hint = f"did you mean {match[0]}?" if match else "--help lists all keys"
    return f"no such key '{key}'; {hint}"


@contextmanager
def explained_errors(configuration: Configuration, flags: Sequence[str]) -> Iterator[None]:
    """Turn a parser's message into one line: the key or file, what it got, what is allowed."""
    try:
        yield
    except ParseError as error:
        raise ValueError(explain(str(error), configuration, flags)) from None


def explain(message: str, configuration: Configuration, flags: Sequence[str]) -> str:
    """Reduce a message of jsonargparse to its cause; see `explained_errors`."""
    parents = re.findall(r'(?:Parser key|Key|key) "([\w.]+)"', message)
    unknown = re.search(r"no such key '([\w.]+)'; (?:did you mean ([\w.]+)\?)?", message)
    if unknown:
        key = ".".join([*parents, unknown[1]])
        if unknown[2] is None:
            return f"{_where(key, configuration, flags)}: no such key; --help lists all keys"
        meant = ".".join([*parents, unknown[2]])
        return f"{_where(key, configuration, flags)}: no such key; did you mean {meant}?"
    reason = _reason([line.strip(" -") for line in message.splitlines() if line.strip(" -")])
    if not parents:
        return reason
    return f"{_where('.'.join(parents), configuration, flags)}: {reason}"


def _where(key: str, configuration: Configuration, flags: Sequence[str]) -> str:
    """The flag or the file that gave a key."""
    names = {flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")}
    if any(_short(name) == _short(key) or key.startswith(name + ".") for name in names):
        return f"--{key}"
    files = {_short(name): file for name, file in configuration.origin.items()}
    file = files.get(_short(key))
    return f"{file}: {key}" if file else f"--{key}"


def _short(key: str) -> str:
    return key.replace(".init_args", "")


def _reason(lines: Sequence[str]) -> str:
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("Problem with given class_path"):
            return f"{line.removeprefix('Problem with given ')} {following}{_nearest_class(line)}"
        if "expects a function or a callable class" in line:
            return line.partition("callable class: ")[2]
    for line in lines:
        match = re.match(r"Expected an? (.+?)\. Got value: (.*)", line)
        if match:
            kind = re.sub(r"<class '([\w.]+)'>", r"\1", match[1])
            return f"expected {kind}, got {match[2][:100]!r}"
    for line in lines:
        if line.startswith("Expected a dot import path string"):
            return f"expected the import path of a class, got {line.partition(': ')[2][:100]!r}"
    return "\n".join(line[:200] for line in lines[:3])


def _nearest_class(line: str) -> str:
    match = re.search(r"'([\w.]+)\.(\w+)'", line)
    if match is None:
        return ""
    try:
        names = dir(importlib.import_module(match[1]))
    except ImportError:
        return ""
    near = difflib.get_close_matches(match[2], names, 1)
    return f"; did you mean {match[1]}.{near[0]}?" if near else ""


def split_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `-c FILE` and `--config FILE` out of a command line.

    Returns:
        The files in their order and the arguments that remain.
    """
    files, rest, pending = [], [], False
    for argument in arguments:
        if pending:
            files.append(argument)
            pending = False
        elif argument in ("-c", "--config"):
            pending = True
        elif argument.startswith("--config="):
            files.append(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    if pending:
        raise ValueError("--config needs the path of a YAML file")
    return files, rest


def read(arguments: Sequence[str]) -> tuple[Configuration, list[str]]:
    """Split a command line into the merged configuration of its files and its flags."""
    files, flags = split_files(arguments)
    configuration = Configuration(files)
    for index, flag in enumerate(flags):
        # A class that is changed by a flag drops the old class's arguments, as in a file.
        key = flag.removeprefix("--").partition("=")[0]
        if flag.startswith("--") and "." in key:
            value = flag_value([flag, *flags[index + 1 : index + 2]], key) or ""
            if re.fullmatch(r"[A-Za-z_][\w.]*", value):
                configuration.replace_class(key, value)
    return configuration, flags


@contextmanager
def merged_file(configuration: Configuration) -> Iterator[list[str]]:
    """The arguments that make jsonargparse read a merged configuration."""
    with tempfile.TemporaryDirectory(prefix="lit-llm-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(configuration.values, sort_keys=False), encoding="utf-8")
        yield ["--config", str(file)] if configuration.values else []


def flag_value(flags: Sequence[str], key: str) -> str | None:
    """The last value that the flags give to a key; None if they do not name it."""
    value = None
    for index, flag in enumerate(flags):
        name, equals, text = flag.removeprefix("--").partition("=")
        if flag.startswith("--") and name == key:
            value = text if equals else (flags[index + 1] if index + 1 < len(flags) else None)
    return value
