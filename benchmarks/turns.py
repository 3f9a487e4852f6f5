"""The side of a contender: it prepares itself, then works when it is asked to.

Contenders are processes that stay, so that they can take turns: what is measured in one minute is
compared with what is measured in the same minute. Standard library only, for this also runs where
lit-llm is not installed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


class Turns:
    """Requests and answers, a line of JSON each, over stdin and what was stdout.

    Whatever a library prints from then on goes to stderr.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def answer(self, value: Any) -> None:
        """Give the result of a request."""
        self._answers.write(json.dumps({"value": value}) + "\n")

    def next(self) -> tuple[str, dict[str, Any]] | None:
        """Wait for a request: its name and arguments; None when there will be no other."""
        line = sys.stdin.readline()
        if not line:
            return None
        request = json.loads(line)
        return request["call"], request["arguments"]

    def serve(self, **calls: Callable[..., Any]) -> None:
        """Answer with what the function of the request's name returns, until stdin closes."""
        self.answer("ready")
        while (request := self.next()) is not None:
            name, arguments = request
            self.answer(calls[name](**arguments))
