"""The parser of commands with a few keys: help and errors appear at once.

That of commands.parser needs seconds to import Lightning.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, NoReturn

from jsonargparse import ArgumentParser


class SmallParser(ArgumentParser):
    """Says what is wrong in two lines: what, and an example that is right.

    Args:
        command: as the user typed it
        example: a line that would do
    """

    def __init__(self, command: str, example: str, **kwargs: Any) -> None:
        super().__init__(
            prog=f"cli.py {command}",
            description=f"Example: {example}",
            allow_abbrev=False,
            **kwargs,
        )
        self._command, self._example = command, example

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if in_file := re.match(r"Option '(\w+)' is not accepted", message):  # of -c
            message = f"unrecognized arguments: --{in_file[1]}"
        if unknown := re.search(r"unrecognized arguments: (\S+)", message):
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[1].partition("=")[0], flags, 1)
            hint = f"did you mean {near[0]}?" if near else "--help lists all"
            message = f"no such argument {unknown[1]}; {hint}"
        raise ValueError(f"{self._command}: {message}\nExample: {self._example}")
