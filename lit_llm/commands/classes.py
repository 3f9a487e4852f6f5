"""Which classes a configuration may name: parts of a run, and what the user has written.

A configuration can come with a stranger's checkpoint. Most keys say which kind of class they take,
and jsonargparse refuses others. But a key that takes a function builds whatever it is given, and
one that takes anything builds any class: `subprocess.Popen` too. So every name is looked at here,
before anything of it is called, and what belongs to Python itself before it is imported.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from lit_llm.commands.compose import Configuration, parse_value
from lit_llm.tokenizer.named import import_named, is_pythons_own, refuse_pythons_own

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# Under these a name without class_path may be that of a function or a class.
TAKE_CLASSES = ("model", "trainer", "data.init_args.corpus", "data.init_args.tokenizer")
# Last words of keys that take a file or a name, never a function: `path: code.txt` is a file.
TAKE_TEXTS = {"path", "paths", "file", "files", "glob", "globs", "dir", "folder", "name"}
TAKE_TEXTS |= {"project", "experiment", "entity", "group", "tags", "notes", "url", "uri", "version"}
# Nothing of Python's own that can be called has such a name.
OF_DATA = {"txt", "json", "jsonl", "csv", "tsv", "parquet", "arrow", "md", "gz", "zst", "model"}
# Libraries whose classes are looked at more closely: only these kinds are parts of a run.
KINDS = (
    "torch.nn.Module",
    "torch.optim.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "lightning.pytorch.LightningDataModule",
    "lightning.pytorch.callbacks.Callback",
    "lightning.pytorch.loggers.Logger",
    "lightning.pytorch.strategies.Strategy",
    "lightning.pytorch.profilers.Profiler",
    "lightning.pytorch.accelerators.Accelerator",
    "lightning.pytorch.plugins.Precision",
    "lightning.pytorch.plugins.CheckpointIO",
    "lightning.pytorch.plugins.LayerSync",
    "lightning.fabric.plugins.ClusterEnvironment",
)
FUNCTIONAL = "torch.nn.functional"  # activations, for a network of the user's: they do nothing else
KNOWN = ("torch.optim.AdamW",)  # that of every recipe: PyTorch is not imported to look at it
HELPERS = ("torch.distributed.algorithms.", "torch.distributed.fsdp.", "torch.distributed.tensor.")


def refuse_strange(configuration: Configuration, flags: Sequence[str]) -> None:
    """Refuse a class that is no part of a run, before it or anything else is built.

    Raises:
        ValueError: names the key, or the file that gave it, and the class.
    """
    for key, name in named(configuration.values, flags):
        try:
            if key.endswith("class_path"):
                refuse_class(name)
            else:
                _refuse_function(key, name)
        except ValueError as error:
            short = key.removesuffix(".class_path")
            file = configuration.origin.get(key)
            raise ValueError(f"{f'{file}: ' if file else '--'}{short}: {error}") from None


def refuse_class(path: str) -> None:
    """Refuse an import path as class_path; one that leads nowhere is left to the parser.

    Raises:
        ValueError: it is Python's own, no class, or a library's class of no kind that a run has.
    """
    if "." not in path:
        return  # a short name, of a known class of the right kind
    refuse_pythons_own(path)
    if path in KNOWN:
        return
    if path.startswith("lit_llm."):  # known by its name: a plan does without importing some of it
        if path.startswith("lit_llm.commands.") or not path.rpartition(".")[2][:1].isupper():
            raise ValueError(f"class_path={path} is no class that a run is made of")
        return
    try:
        found = import_named(path)
    except ValueError:
        return
    if not isinstance(found, type):
        raise ValueError(f"class_path={path} is no class: name a class, with its init_args")
    if (
        is_users_own(f"{found.__module__}.{found.__qualname__}")  # not what the file only imports
        or found.__module__.startswith(HELPERS)
        or dataclasses.is_dataclass(found)
    ):
        return
    # What is loaded already is enough: a class cannot have a base in a module that is not.
    kinds = tuple(kind for kind in map(_loaded, KINDS) if kind is not None)
    if not issubclass(found, kinds):
        raise ValueError(
            f"{path} is no part of a training run: name an optimizer, a callback, a logger or "
            "another class that the Trainer takes, or one of a file of your own"
        )


def is_users_own(path: str) -> bool:
    """Whether a module is neither Python's nor an installed package's, but a file of the user's."""
    if is_pythons_own(path):
        return False
    try:
        spec = importlib.util.find_spec(path.partition(".")[0])
    except (ImportError, ValueError):
        return False
    places = [spec.origin] if spec and spec.origin else []
    places += list(spec.submodule_search_locations or []) if spec else []
    return bool(places) and not any(_is_installed(Path(place).resolve()) for place in places)


def _is_installed(place: Path) -> bool:
    """For all, for this user, by the system, or for the Python below a virtual environment."""
    if {"site-packages", "dist-packages"} & set(place.parts):
        return True
    folders = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    folders += [site.getusersitepackages(), *site.getsitepackages()]
    return any(place.is_relative_to(Path(folder).resolve()) for folder in folders)


def _refuse_function(key: str, name: str) -> None:
    """Refuse a library's function, or anything of Python's own, where a text may stand for one."""
    if not key.startswith(TAKE_CLASSES) or _takes_text(key):
        return
    module, _, attribute = name.rpartition(".")
    if is_pythons_own(name):
        if attribute in OF_DATA:
            return  # which of Python's modules are loaded must not decide what a file is called
        if module not in sys.modules or hasattr(sys.modules[module], attribute):
            refuse_pythons_own(name)
        return
    found = getattr(sys.modules.get(module), attribute, None)
    if isinstance(found, FunctionType):
        home = found.__module__ or ""  # a file of the user's may import `shutil.rmtree`
        if home != FUNCTIONAL and (home.startswith("lit_llm.") or not is_users_own(home)):
            refuse_class(name)


def _takes_text(key: str) -> bool:
    return key.rpartition(".")[2].rpartition("_")[2] in TAKE_TEXTS


def _loaded(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def named(values: dict[str, Any], flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield key and value of all that may name a class or a function, of files and flags."""
    yield from _texts(values, "")
    for index, flag in enumerate(flags):
        key, equals, text = flag.removeprefix("--").partition("=")
        if flag.startswith("--"):
            text = text if equals else "".join(flags[index + 1 : index + 2])
            try:
                value = parse_value(text)
            except Exception:  # the parser will say so
                continue
            yield from _texts(value, key.rstrip("+"))


def _texts(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item, key)
    elif isinstance(node, str) and DOTTED.fullmatch(node):
        yield key, node
