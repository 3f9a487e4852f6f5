"""Whether a class plainly takes arguments, told by its source: for `plain_keys`."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from typing import Any

from lit_llm.commands.signatures import definition

FOLLOW = ("vocab_size", "max_seq_len", "seed", "init_from", "tokenizer_from")
"""Keys that others decide, or that bring another configuration with them."""

KINDS: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}


def takes(class_path: str, arguments: dict[str, Any]) -> bool:
    """Whether a class plainly takes these arguments."""
    known = parameters(class_path)
    return all(
        name in known and name not in FOLLOW and _fits(value, *known[name])
        for name, value in arguments.items()
    )


def parameters(class_path: str) -> dict[str, tuple[ast.expr | None, Any]]:
    """Annotation and default of each parameter; `...` for a default that is no plain value."""
    found = definition(class_path)
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return dict(_of_function(node.args))
    fields = [node for node in found.body if isinstance(node, ast.AnnAssign)]  # a dataclass
    return {
        node.target.id: (node.annotation, _plain_value(node.value))
        for node in fields
        if isinstance(node.target, ast.Name)
    }


def _of_function(args: ast.arguments) -> Iterator[tuple[str, tuple[ast.expr | None, Any]]]:
    by_place = args.args[1:]
    defaults = [*[None] * (len(by_place) - len(args.defaults)), *args.defaults]
    for argument, default in [
        *zip(by_place, defaults, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]:
        yield argument.arg, (argument.annotation, _plain_value(default))


def _plain_value(node: ast.expr | None) -> Any:
    try:
        return ... if node is None else ast.literal_eval(node)
    except ValueError:
        return ...


def _fits(value: Any, annotation: ast.expr | None, default: Any) -> bool:
    if type(value) is type(default) and value == default:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not 0 < value < math.inf:
        return False
    if is_number and isinstance(default, float) and default < 1 <= value:
        return False  # zero is often a mistake, and so is a share of 1
    return _is_of(value, annotation)


def _is_of(value: Any, annotation: ast.expr | None) -> bool:
    """Whether a value is of an annotation's kind; no, where that is not told by Python alone."""
    match annotation:
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id=name) if name in KINDS:
            is_bool = isinstance(value, bool)
            return isinstance(value, KINDS[name]) and is_bool == (name == "bool")
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _is_of(value, left) or _is_of(value, right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return value is None or _is_of(value, inner)
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=several)):
            return any(_is_of(value, one) for one in several)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=several)):
            return value in [one.value for one in several if isinstance(one, ast.Constant)]
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return isinstance(value, list) and all(_is_of(one, inner) for one in value)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=several)):
            same = isinstance(value, list) and len(value) == len(several)
            return same and all(map(_is_of, value, several))
    return False
