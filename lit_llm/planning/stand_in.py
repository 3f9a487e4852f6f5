"""A plan imports no compiler and no computer algebra.

PyTorch's optimizers and activation checkpointing ask `torch._dynamo` whether they are being
compiled; its shape functions ask `torch.fx.experimental.symbolic_shapes`, and through it `sympy`,
whether a size is a symbol. They import them to ask, for 2 s, which is longer than everything else
in a plan. Nothing is compiled here and every size is a number, so stand-ins may give the answer.
"""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _StandIn(ModuleType):
    """Gives some answers; for anything else it makes way for the real module."""

    def __init__(self, name: str, answers: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(answers)

    def enter(self) -> None:
        sys.modules[self.__name__] = self
        self._bind(self)

    def leave(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
            self._bind(None)

    def _bind(self, module: ModuleType | None) -> None:
        """Modules are also attributes of the package they are in."""
        package, _, name = self.__name__.rpartition(".")
        parent = sys.modules.get(package)
        if parent is not None and module is not None:
            parent.__dict__[name] = module
        elif parent is not None:
            parent.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == COMPILER and name == "config":
            return importlib.import_module(f"{COMPILER}.config")  # light, unlike the rest
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def no_compiler() -> Iterator[None]:
    """Run eager code without those imports, where they have not been made yet."""
    asked: list[Any] = []

    def disable(fn: Callable | None = None, *_: Any, **__: Any) -> Callable:
        if fn is None:
            return disable
        asked.append(fn)
        return fn

    compiler = {
        "__path__": [str(Path(torch.__file__).parent / "_dynamo")],
        "disable": disable,
        "graph_break": lambda *_, **__: None,
    }
    answers = {COMPILER: compiler, "torch.fx.experimental.symbolic_shapes": NUMBERS, "sympy": NONE}
    stand_ins = [
        _StandIn(name, given) for name, given in answers.items() if name not in sys.modules
    ]
    for stand_in in stand_ins:
        stand_in.enter()
    try:
        yield
    finally:
        for stand_in in stand_ins:
            stand_in.leave()
        for fn in asked:  # what was remembered of the answers
            getattr(fn, "__dict__", {}).pop("__dynamo_disable", None)


# What symbolic_shapes says of sizes that are numbers.
NUMBERS: dict[str, Any] = {
    "expect_true": lambda a, skip=0: a,
    "free_unbacked_symbols": lambda a: set(),
    "guard_int": int,
    "guard_or_false": bool,
    "guard_or_true": bool,
    "guard_size_oblivious": bool,
    "guarding_hint_or_throw": lambda a: a,
    "has_guarding_hint": lambda a: True,
    "is_nested_int": lambda a: False,
    "statically_known_true": bool,
    "sym_and": lambda *values: reduce(operator.and_, values),
    "sym_eq": operator.eq,
    "sym_or": lambda *values: reduce(operator.or_, values),
}
NONE = {"Basic": type("Basic", (), {})}  # the class of sympy's symbols: there is none
