"""Secrets stay out of everything that a run writes or prints.

A key has to reach the object that needs it, and nothing else: not the run's folder, not its
checkpoints, not the terminal. Configurations are copied without them, and what was found once in
files, flags or the environment is left out of all later output.

Imports nothing heavy: error messages pass through here.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from lit_llm.commands.secret_kinds import (
    MASK,
    OF_A_SERVICE,
    SCHEME,
    SHAPES,
    is_mask,
    is_secret,
    is_secret_name,
    is_secret_number,
    looks_random,
    may_be_secret,
    words_of,
)

SHORTEST = 6  # a shorter one could be a part of any word: its key hides it, and nothing else

# -- leaving them out ------------------------------------------------------------------------------


def redact(tree: Any, name: str = "", *, inside: bool = False) -> Any:
    """Copy a configuration without its secrets.

    Args:
        tree: mappings, lists and values; jsonargparse's Namespaces too
        name: of the key that holds it
        inside: whether all of it stands under the name of a secret

    Returns:
        The same with MASK in place of each secret; what is no text, such as null, stays.
    """
    items = _items(tree)
    if items is not None:
        inside = inside or is_secret_name(name)
        values = {
            key: redact(value, str(key), inside=inside and key != "class_path")
            for key, value in items
        }
        return values if isinstance(tree, dict) else type(tree)(**values)
    if isinstance(tree, list | tuple):
        return type(tree)(redact(item, name, inside=inside) for item in tree)
    if isinstance(tree, int) and not isinstance(tree, bool):
        return MASK if is_secret_number(name) else tree
    if not isinstance(tree, str):
        return tree
    return MASK if tree and (inside or is_secret(name, tree)) else _redact_shapes(tree)


def redact_text(text: str) -> str:
    """Leave out of a text what looks like a secret, and what is known to be one."""
    return redact_known(_redact_shapes(text))


def redact_known(text: str) -> str:
    """Leave out of a text the secrets that `remember` has met; anything else stays as it is."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without its secrets, to be kept with a run."""
    redacted = list(arguments)
    for index, name, value in _named(arguments):
        flag, equals, _ = arguments[index].partition("=")
        clean = _redact_value(name, value)
        redacted[index] = f"{flag}={clean}" if arguments[index] != value and equals else clean
    return [redact_text(argument) for argument in redacted]


def _redact_shapes(text: str) -> str:
    for shape in SHAPES:
        text = shape.sub(_mask_match, text)
    return text


def _mask_match(match: re.Match[str]) -> str:
    group = 1 if match.re.groups else 0
    if is_mask(match[group]):
        return match[0]
    start, end = match.start(group) - match.start(), match.end(group) - match.start()
    return match[0][:start] + MASK + match[0][end:]


def _redact_value(name: str, value: str) -> str:
    tree = _structure(value)
    if tree is None:
        return str(redact(value, name))
    clean = redact(tree, name)
    return value if clean == tree else str(clean)


def _structure(value: str) -> Any:
    """What a flag's value holds if it is a mapping or a list, else None."""
    if not value.lstrip().startswith(("{", "[")):
        return None
    from lit_llm.commands.compose import parse_value

    try:
        return parse_value(value)
    except Exception:  # the parser will say so
        return None


def _named(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield place, key and value of each flag's value; the place is that of the value."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            continue
        name = flag.removeprefix("--").rstrip("+").rpartition(".")[2]
        if equals:
            yield index, name, value
        elif index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            yield index + 1, name, arguments[index + 1]


def _items(tree: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(tree, dict):
        return list(tree.items())
    return list(vars(tree).items()) if type(tree).__name__ == "Namespace" else None


# -- what is known -----------------------------------------------------------------------------

# The secrets of this process. One place for all, since any exception may carry one anywhere.
_known: set[str] = set()


def remember(tree: Any) -> None:
    """Learn the secrets of a configuration, so that no later output shows them."""
    for name, value, inside in _texts(tree):
        if inside or is_secret(name, value):
            _learn(value)
            _learn(SCHEME.sub("", value))
        for shape in SHAPES:
            for match in shape.finditer(value):
                found = match[1] if shape.groups else match[0]
                _learn(found)
                _learn(found.partition(":")[2])  # of user:password


def remember_arguments(arguments: Sequence[str]) -> None:
    """The same for a command line."""
    for _, name, value in _named(arguments):
        tree = _structure(value)
        remember({name: value if tree is None else tree})


def remember_environment(environment: Mapping[str, str] = os.environ) -> None:
    """The same for environment variables, of which some name a file that holds the secret.

    Nobody wrote them for this run: under an unknown name only what looks random is learned, for
    `X_AUTH=kerberos` must not hide a word.
    """
    for name, value in environment.items():
        if _is_path(value):
            continue
        words = words_of(name)
        is_random = looks_random(value, 8)
        known = bool(OF_A_SERVICE & set(words)) or is_random or len(value) >= 16
        remember({name if known else "": value})
        if is_random and may_be_secret(words):
            _learn(value)


def _learn(secret: str) -> None:
    if len(secret) >= SHORTEST and not is_mask(secret):
        _known.update((secret, quote(secret, safe="")))


def _is_path(value: str) -> bool:
    try:
        return value.startswith((os.sep, "~", ".")) and os.path.exists(os.path.expanduser(value))
    except (OSError, ValueError):
        return False


def _texts(tree: Any, name: str = "", inside: bool = False) -> Iterator[tuple[str, str, bool]]:
    items = _items(tree)
    if items is not None:
        inside = inside or is_secret_name(name)
        for key, value in items:
            yield from _texts(value, str(key), inside and key != "class_path")
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _texts(item, name, inside)
    elif isinstance(tree, str):
        yield name, tree, inside
    elif isinstance(tree, int) and not isinstance(tree, bool) and is_secret_number(name):
        yield name, str(tree), True


# -- output --------------------------------------------------------------------------------------


@contextmanager
def redacted_output() -> Iterator[None]:
    """Leave known secrets out of what is printed, logged or warned, and out of tracebacks.

    Tracebacks are printed after this process has left the block, so their printer stays.
    """
    sys.excepthook = _print_exception
    threading.excepthook = _print_exception_of_thread
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Redacted(out), _Redacted(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


class _Redacted:
    """A stream that leaves known secrets out; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact_known(text) if _known else text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _print_exception(kind: Any, error: BaseException | None, trace: Any) -> None:
    lines = traceback.format_exception(kind, error, trace)
    print(redact_text("".join(lines)), end="", file=sys.stderr, flush=True)


def _print_exception_of_thread(arguments: Any) -> None:
    if arguments.exc_type is not SystemExit:
        _print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
