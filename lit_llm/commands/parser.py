"""The argument parser: merged configurations in, and errors that fit on a screen."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from lit_llm.commands.blame import refusal
from lit_llm.commands.classes import refuse_strange
from lit_llm.commands.compose import Configuration
from lit_llm.commands.secret_kinds import is_masked
from lit_llm.commands.secrets import redact, remember, remember_arguments


class ParseError(ValueError):
    """What jsonargparse found wrong, in its own many lines."""


class Parser(ArgumentParser):
    """A parser that raises where others print their usage and exit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # --trainer.max_step is a mistake, not a short way to say max_steps
        kwargs = {"allow_abbrev": False, "usage": "%(prog)s [-c FILE] [--key VALUE]", **kwargs}
        super().__init__(*args, **kwargs)

    def dump(self, cfg: Namespace, **kwargs: Any) -> str:
        """The configuration as text, for config.yaml, a checkpoint, --print_config: no secrets.

        They are left out of the plain values: a key's type may not allow what takes their place.
        """
        text = super().dump(cfg, **kwargs)
        plain = yaml.safe_load(text)
        clean = redact(plain)
        if clean == plain:
            return text  # with its comments
        return yaml.safe_dump(clean, sort_keys=False, allow_unicode=True, width=1_000_000)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Only the parser that knows the key's neighbours can say which one was meant. It may be
        # one that jsonargparse has made for the arguments of a class deep in the configuration.
        parser = getattr(ex, "subcommand_parser", None) or self
        names = [
            action.dest
            for action in parser._actions
            if action.dest and type(action).__name__ != "ActionLink"  # nobody's to set
        ]
        for pattern in UNKNOWN:
            message = re.sub(pattern, lambda match: _no_such_key(match[1], names), str(message))
        raise ParseError(message)


UNKNOWN = (
    r"[Uu]nrecognized arguments?:? --([\w.]+).*",
    r"(?:Subcommand '\w+' does not accept option|Option) '([\w.]+)'(?: is not accepted)?",
    r"Key '([\w.]+)' is not expected",
)

# Keys that nobody may set, and what decides them.
FOLLOWS = {
    "model.gpt.vocab_size": "the tokenizer",
    "model.gpt.max_seq_len": "data.seq_len",
    "model.seed": "seed_everything",
    "data.init_args.tokenizer_from": "model.init_from",
}


def _no_such_key(key: str, names: Sequence[str]) -> str:
    match = difflib.get_close_matches(key, names, 1, 0.5)
    hint = f"did you mean {match[0]}?" if match else "--help lists all keys"
    return f"no such key '{key}'; {hint}"


@contextmanager
def explained_errors(configuration: Configuration, flags: Sequence[str]) -> Iterator[None]:
    """Turn a parser's message into one line: the key or file, what it got, what is allowed."""
    remember(configuration.values)
    refuse_masked(configuration, flags)
    refuse_strange(configuration, flags)
    for key, owner in FOLLOWS.items():
        if any(_short(flag.partition("=")[0]) == f"--{_short(key)}" for flag in flags):
            raise ValueError(f"--{key} follows from {owner}: remove it")
    try:
        yield
    except ParseError as error:
        raise ValueError(explain(str(error), configuration, flags)) from None
    except (TypeError, ImportError) as error:
        if missing := _missing_package(error):
            raise ValueError(f"a part needs a package that is not installed: {missing}") from None
        raise
    except Exception as error:
        if found := refusal(error, configuration, flags):
            raise ValueError(f"{where(found[0], configuration, flags)}: {found[1]}") from None
        raise


def explain(message: str, configuration: Configuration, flags: Sequence[str]) -> str:
    """Reduce a message of jsonargparse to its cause; see `explained_errors`."""
    parents = re.findall(r'(?:Parser key|Key|key) "([\w.]+)"', message)
    parents = parents[1:] if parents[:1] == ["config"] else parents  # that of the merged files
    unknown = re.search(r"no such key '([\w.]+)'; (?:did you mean ([\w.]+)\?)?", message)
    if unknown:
        key = ".".join([*parents, unknown[1]])
        if unknown[2] is None:
            return f"{where(key, configuration, flags)}: no such key; --help lists all keys"
        meant = ".".join([*parents, unknown[2]])
        return f"{where(key, configuration, flags)}: no such key; did you mean {meant}?"
    if linked := re.search(r'Linked "([\w.]+)" must be given via', message):
        return f"--{linked[1]} follows from {FOLLOWS[linked[1]]}: remove it"
    if alone := re.search(r"^unrecognized arguments:(.*)", message):
        return f"{alone[1].strip() or '--'} stands alone: flags are written --KEY VALUE"
    if missing := re.search(r"arguments are required: \w+\.([\w.]+)", message):
        return (
            f"--{missing[1]} is not given: start from a recipe, such as "
            "-c configs/recipes/quickstart/pretrain.yaml"
        )
    if "expected one argument" in message:
        return f"{_without_value(flags)}: needs a value"
    reason = _reason([line.strip(" -") for line in message.splitlines() if line.strip(" -")])
    if lacking := re.search(r"the following arguments are required: (\w+)", message):
        key = ".".join([*parents, lacking[1]])
        return f"{where('.'.join(parents), configuration, flags)}: --{key} is not given: give it"
    if not parents:
        return reason
    key = ".".join(parents)
    # A wrong class is blamed on the file that names it, not on one that adds arguments.
    blamed = f"{key}.class_path" if "class_path" in reason or "attribute" in reason else key
    return f"{where(blamed, configuration, flags).removesuffix('.class_path')}: {reason}"


def refuse_linked(configuration: Configuration) -> None:
    """Refuse what a file says about keys that others decide; it would have no effect.

    Raises:
        ValueError: names the file, the key, and what decides it.
    """
    given = {_short(key): file for key, file in configuration.origin.items()}
    for key, owner in FOLLOWS.items():
        if file := given.get(_short(key)):
            raise ValueError(f"{file}: {key} follows from {owner}: remove it")


def _missing_package(error: BaseException | None) -> str | None:
    """What a library that makes its packages optional says where one is missing."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and "pip install" in str(error):
            return " ".join(str(error).split())
        error = error.__cause__ or error.__context__
    return None


def refuse_masked(configuration: Configuration, flags: Sequence[str]) -> None:
    """Refuse a configuration from which secrets were left out, until they are given again.

    Raises:
        ValueError: names the file and the first such key.
    """
    given = {flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")}
    for key, value in _leaves(configuration.values):
        if key.endswith("prompts"):
            continue  # somebody's text, with stars of its own
        if is_masked(value) and not any(_short(name) == _short(key) for name in given):
            raise ValueError(
                f"{where(key, configuration, flags)} is {value!r}: a secret stood there, and runs "
                f"keep none.\nGive it again by --{_short(key)}, or in a later file"
            )


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for item in node:
            yield from _leaves(item, key)
    else:
        yield key, node


def _without_value(flags: Sequence[str]) -> str:
    followed = zip(flags, [*flags[1:], "--"], strict=True)
    return next(
        flag for flag, after in followed if after.startswith("--") and re.match("--[^=]+$", flag)
    )


def where(key: str, configuration: Configuration, flags: Sequence[str]) -> str:
    """The flag or the file that gave a key."""
    names = {flag.removeprefix("--").partition("=")[0] for flag in flags if flag.startswith("--")}
    short = _short(key).removesuffix(".class_path")
    if any(_short(name) == short or key.startswith(name + ".") for name in names):
        return f"--{key}"
    files = {
        _short(given): file
        for given, file in configuration.origin.items()
        if not given.endswith(".init_args")  # it would stand for the whole class
    }
    file = files.get(_short(key)) or files.get(short)  # the latter: a class that is a plain text
    return f"{file}: {key}" if file else f"--{key}"


def _short(key: str) -> str:
    return key.replace(".init_args", "")


def _reason(lines: Sequence[str]) -> str:
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("Problem with given class_path"):
            cause = f"{line.removeprefix('Problem with given ')} {following}"
            return cause + _nearest_class(following)
        if "expects a function or a callable class" in line:
            cause = line.partition("callable class: ")[2].partition(". Got value")[0]
            return cause + _nearest_class(cause)
        if match := re.match(
            r"Import path ([\w.]+) does not correspond to a sub\w+ of (\w+)", line
        ):
            return f"{match[1]} is no {match[2]}: name a subclass of {match[2]}"
    for line in lines:
        match = re.match(r"Expected an? (.+?)\. Got value: (.*)", line)
        if match:
            return _expected([match[1]], match[2])
    for line in lines:
        if line.startswith("Expected a dot import path string"):
            return f"expected the import path of a class, got {line.partition(': ')[2][:100]!r}"
    kinds = [match[1] for line in lines if (match := re.match(r"Expected an? (.+)", line))]
    if kinds and lines[-1].startswith("Given value: "):
        return _expected(kinds, lines[-1].removeprefix("Given value: "))
    return "\n".join(line[:200] for line in lines[:3])


def _expected(kinds: Sequence[str], got: str) -> str:
    kinds = [re.sub(r"<class '([\w.]+)'>", r"\1", kind) for kind in kinds]
    kinds = [re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", kind) for kind in kinds]
    choices = re.findall(r"'([^']+)'", " ".join(kinds))
    near = difflib.get_close_matches(got, choices, 1)
    kinds = ["null" if kind == "NoneType" else kind for kind in kinds]
    return f"expected {' or '.join(kinds)}, got {got[:100]!r}" + (
        f"; did you mean {near[0]}?" if near else ""
    )


def _nearest_class(cause: str) -> str:
    """What a module has that is called almost like what it lacks."""
    match = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", cause)
    if match is None:
        return ""
    module = importlib.import_module(match[1])
    names = [*dir(module), *getattr(module, "__all__", [])]
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
    remember_arguments(flags)
    configuration = Configuration(files)
    remember(configuration.values)
    refuse_strange(configuration, flags)
    for index, flag in enumerate(flags):
        # A class that is changed by a flag drops the old class's arguments, as in a file.
        key = flag.removeprefix("--").partition("=")[0]
        if flag.startswith("--") and "." in key:
            value = flag_value([flag, *flags[index + 1 : index + 2]], key) or ""
            if re.fullmatch(r"[A-Za-z_][\w.]*", value):
                configuration.replace_class(key, value)
    return configuration, flags


def merged(configuration: Configuration) -> list[str]:
    """The arguments that make jsonargparse read a merged configuration.

    It comes as text: a file would stay behind, secrets and all, if the process were killed.
    """
    if not configuration.values:
        return []
    return ["--config", yaml.safe_dump(configuration.values, sort_keys=False)]


def flag_value(flags: Sequence[str], key: str) -> str | None:
    """The last value that the flags give to a key; None if they do not name it."""
    value = None
    for index, flag in enumerate(flags):
        name, equals, text = flag.removeprefix("--").partition("=")
        if flag.startswith("--") and name == key:
            value = text if equals else (flags[index + 1] if index + 1 < len(flags) else None)
    return value
