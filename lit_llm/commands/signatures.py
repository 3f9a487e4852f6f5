"""What a class takes, read from its source without importing what the source imports.

A plan needs to know that `trainer.max_step` is no key, and not what the Trainer does: importing
Lightning takes twice as long as everything else in a plan.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HEAVY = ("lightning", "torchmetrics")


def outline(class_path: str) -> type:
    """A class with the name and the `__init__` signature of another, which it only remembers.

    Annotations that need one of the heavy libraries become Any.

    Raises:
        ValueError: there is no such class, or it has no `__init__` of its own.
    """
    tree, shell, module = _found(class_path)
    name = shell.name
    found = [node for node in shell.body if _is_init(node)]
    if not found:
        raise ValueError(f"class_path '{class_path}': the class has no __init__ of its own")
    init = found[0]
    assert isinstance(init, ast.FunctionDef)
    init.decorator_list, init.returns = [], None
    init.body = ast.parse(
        "self.arguments = {k: v for k, v in locals().items() if k != 'self'}"
    ).body
    shell = ast.ClassDef(name, bases=[], keywords=[], body=[init], decorator_list=[])
    if sys.version_info >= (3, 12):
        shell.type_params = []
    names = {node.id for node in ast.walk(init.args) if isinstance(node, ast.Name)}
    return _run(module, name, [*_imports(tree, names), shell], names)


def definition(class_path: str) -> ast.ClassDef:
    """The source of a class.

    Raises:
        ValueError: there is no such class.
    """
    return _found(class_path)[1]


def _found(class_path: str) -> tuple[ast.Module, ast.ClassDef, str]:
    """The module that defines a class, the class, and the module's name."""
    module, _, name = class_path.rpartition(".")
    file = _source(module, class_path)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return tree, node, module
    for node in tree.body:  # does it come from elsewhere?
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            parent = package.split(".")[: len(package.split(".")) + 1 - node.level]
            names = [*(parent if node.level else ()), *filter(None, (node.module,))]
            return _found(".".join([*names, name]))
    raise ValueError(f"class_path '{class_path}': module {module} has no class {name}")


def _source(module: str, class_path: str) -> Path:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None:
        file = Path(spec.origin)
        inner = file.parent.joinpath(*rest)
        for candidate in (inner.with_suffix(".py"), inner / "__init__.py") if rest else (file,):
            if candidate.is_file():
                return candidate
    raise ValueError(f"class_path '{class_path}': there is no module {module}")


def _is_init(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def _imports(tree: ast.Module, names: set[str]) -> Iterator[ast.stmt]:
    """The imports that the names come from, without those of heavy libraries."""
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        heavy = isinstance(node, ast.ImportFrom) and (node.module or "").startswith(HEAVY)
        wanted = [
            alias
            for alias in node.names
            if (alias.asname or alias.name).partition(".")[0] in names
            and not heavy
            and not alias.name.startswith(HEAVY)
        ]
        if wanted:
            node.names = wanted
            yield node


def _run(module: str, name: str, body: list[ast.stmt], names: set[str]) -> type:
    """Run the remains of a module; what they lack is Any."""
    made = ModuleType(f"outline_of_{module.replace('.', '_')}")
    made.__dict__.update({n: Any for n in names if not hasattr(builtins, n)})
    remains = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
    sys.modules[made.__name__] = made  # where annotations are looked up
    exec(compile(remains, made.__name__, "exec"), made.__dict__)
    return getattr(made, name)
