"""The help of a key is the docstring of what it sets, read only where somebody asks for help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from jsonargparse import set_parsing_settings


def read_docstrings(arguments: Sequence[str]) -> None:
    """Let jsonargparse find the docstrings of fields, if the arguments ask for a help.

    It reads the source of every class for them, which takes 0.7 s of a start. A run shows none of
    them; and only dataclasses, whose fields are parameters, have such docstrings.
    """
    wanted = any(
        argument in ("-h", "--help") or argument.endswith(".help") or "print_config" in argument
        for argument in map(_name, arguments)
    )
    set_parsing_settings(docstring_parse_attribute_docstrings=wanted)
    if wanted:
        _of_dataclasses_alone()


def _name(argument: str) -> str:
    return argument.partition("=")[0]


def _of_dataclasses_alone() -> None:
    parser: Any = import_module("docstring_parser.parser")
    every = parser.add_attribute_docstrings

    def add_of_dataclasses(component: Any, docstring: Any) -> None:
        if is_dataclass(component):
            every(component, docstring)

    if every.__name__ != add_of_dataclasses.__name__:
        parser.add_attribute_docstrings = add_of_dataclasses
