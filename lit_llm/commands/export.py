"""export: a checkpoint in another form.

A further form is a function (source, target) -> None in lit_llm/checkpoint/ and a line in FORMS;
where it has a choice of dtypes, the function takes the chosen one as a third argument.
"""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jsonargparse import ArgumentParser


class Form(NamedTuple):
    """What a checkpoint can be exported as."""

    module: str
    """Imported when it is asked for: importing torch takes seconds."""

    function: str
    help: str
    dtypes: tuple[str, ...] = ()
    """Of the weights, the default first; empty: they stay as they are."""


FORMS = {
    "checkpoint": Form(
        "lit_llm.checkpoint.consolidate",
        "consolidate",
        "a checkpoint of one file for the weights and one for the state of training",
    ),
    "gguf": Form(
        "lit_llm.checkpoint.gguf.write",
        "to_gguf",
        "a file for llama.cpp, and a Modelfile for ollama",
        ("float32", "float16", "bfloat16", "q8_0"),
    ),
}
EXAMPLE = "python cli.py export --ckpt_path checkpoints/RUN --to checkpoint --out FOLDER"


def run(command: str, arguments: list[str]) -> None:
    """Run export."""
    settings = _parser().parse_args(arguments)
    from lit_llm.checkpoint.find import asked_by, resolve

    form = FORMS[settings.to]
    dtype = _dtype(settings.to, settings.dtype)
    with asked_by("--ckpt_path"):
        source, target = resolve(settings.ckpt_path), Path(settings.out)
    getattr(import_module(form.module), form.function)(source, target, *dtype)
    print(f"{source} -> {target}")
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        print(f"  {path.stat().st_size:>15,} bytes  {path.relative_to(target).as_posix()}")


def _dtype(name: str, asked: str | None) -> tuple[str, ...]:
    """The argument that a form takes besides source and target; none if it has no choice."""
    dtypes = FORMS[name].dtypes
    if asked is None or asked in dtypes:
        return () if not dtypes else (asked or dtypes[0],)
    if not dtypes:
        raise ValueError(f"--dtype {asked}: --to {name} keeps every dtype as it is; leave it out")
    raise ValueError(f"--dtype {asked}: --to {name} can write {', '.join(dtypes)}")


def _parser() -> ArgumentParser:
    forms = "; ".join(f"{name}: {form.help}" for name, form in FORMS.items())
    dtypes = "; ".join(
        f"{name}: {', '.join(form.dtypes)}" for name, form in FORMS.items() if form.dtypes
    )
    parser = _Parser(prog="cli.py export", description=f"Example: {EXAMPLE}")
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these keys")
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint, or a run for its newest")
    parser.add_argument("--to", required=True, choices=list(FORMS), help=forms)
    parser.add_argument("--out", required=True, help="the folder to write; it must not exist")
    parser.add_argument("--dtype", help=f"of the weights; default: the first ({dtypes})")
    return parser


class _Parser(ArgumentParser):
    """Not that of commands.parser, which needs seconds to import Lightning."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if unknown := re.search(r"unrecognized arguments: (\S+)", message):
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[1].partition("=")[0], flags, 1)
            hint = f"did you mean {near[0]}?" if near else "--help lists all"
            message = f"no such argument {unknown[1]}; {hint}"
        raise ValueError(f"export: {message}\nExample: {EXAMPLE}")
