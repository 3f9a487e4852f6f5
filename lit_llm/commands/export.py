"""export: a checkpoint in another form.

A further form is a function (source, target) -> None in lit_llm/checkpoint/ and a line in FORMS.
"""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

# form: (module, function, help); imported when it is asked for
FORMS = {
    "checkpoint": (
        "lit_llm.checkpoint.consolidate",
        "consolidate",
        "a checkpoint that needs nothing beside it: shards put together, adapters merged",
    ),
    "peft": (
        "lit_llm.checkpoint.peft",
        "to_peft",
        "the adapters of a LoRA run for Hugging Face's peft; --base says where their base is",
    ),
}
EXAMPLE = "python cli.py export --ckpt_path checkpoints/RUN --to checkpoint --out FOLDER"


def run(command: str, arguments: list[str]) -> None:
    """Run export."""
    settings = _parser().parse_args(arguments)
    from lit_llm.checkpoint.find import asked_by, resolve

    module, function, _ = FORMS[settings.to]
    with asked_by("--ckpt_path"):
        source, target = resolve(settings.ckpt_path), Path(settings.out)
    further = {}
    if settings.base is not None:
        if settings.to != "peft":
            raise ValueError(
                f"--base names the base of adapters, so it goes with --to peft, not "
                f"{settings.to}: leave it out"
            )
        further["base"] = settings.base
    getattr(import_module(module), function)(source, target, **further)
    print(f"{source} -> {target}")
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        print(f"  {path.stat().st_size:>15,} bytes  {path.relative_to(target).as_posix()}")


def _parser() -> ArgumentParser:
    forms = "; ".join(f"{form}: {text}" for form, (*_, text) in FORMS.items())
    parser = _Parser(prog="cli.py export", description=f"Example: {EXAMPLE}")
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these keys")
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint, or a run for its newest")
    parser.add_argument("--to", required=True, choices=list(FORMS), help=forms)
    parser.add_argument("--out", required=True, help="the folder to write; it must not exist")
    parser.add_argument(
        "--base", type=str, help="with peft: a name on the Hugging Face hub, or a folder"
    )
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
