"""export: a checkpoint in another form.

A further form is a function (source, target, dtype) -> lines in lit_llm/checkpoint/ and a line in
FORMS.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from lit_llm.commands.small_parser import SmallParser

# form: (module, function, the dtypes that it can write, help); imported when it is asked for
FORMS = {
    "checkpoint": (
        "lit_llm.checkpoint.consolidate",
        "consolidate",
        (),
        "a checkpoint that needs nothing beside it: shards put together, adapters merged",
    ),
    "peft": (
        "lit_llm.checkpoint.peft",
        "to_peft",
        (),
        "the adapters of a LoRA run for Hugging Face's peft; --base says where their base is",
    ),
    "hf": (
        "lit_llm.checkpoint.hf.write",
        "export_hf",
        ("float32", "bfloat16", "float16"),
        "a folder for transformers, vLLM and others: config.json, safetensors, tokenizer",
    ),
    "gguf": (
        "lit_llm.checkpoint.gguf.write",
        "export_gguf",
        ("float32", "float16", "bfloat16", "q8_0"),
        "a file for llama.cpp, and a Modelfile for ollama",
    ),
}
EXAMPLE = "python cli.py export --ckpt_path checkpoints/RUN --to hf --out FOLDER"


def run(command: str, arguments: list[str]) -> None:
    """Run export."""
    settings = _parser(command).parse_args(arguments)
    from lit_llm.checkpoint.find import asked_by, resolve

    module, function, dtypes, _ = FORMS[settings.to]
    if settings.dtype is not None and settings.dtype not in dtypes:
        allowed = f"choose one of {', '.join(dtypes)}" if dtypes else "leave it out"
        raise ValueError(f"--to {settings.to} writes no --dtype {settings.dtype}: {allowed}")
    with asked_by("--ckpt_path"):
        source, target = resolve(settings.ckpt_path), Path(settings.out)
    given = {} if settings.dtype is None else {"dtype": settings.dtype}
    if settings.base is not None:
        if settings.to != "peft":
            raise ValueError(
                "--base names the base of adapters, so it goes with --to peft, not "
                f"{settings.to}: leave it out"
            )
        given["base"] = settings.base
    told = getattr(import_module(module), function)(source, target, **given)
    print(f"{source} -> {target}")
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        print(f"  {path.stat().st_size:>15,} bytes  {path.relative_to(target).as_posix()}")
    for line in told or ():
        print(f"  {line}")


def _parser(command: str = "export") -> SmallParser:
    forms = "; ".join(f"{form}: {text}" for form, (*_, text) in FORMS.items())
    parser = SmallParser(command, EXAMPLE)
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these keys")
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint, or a run for its newest")
    parser.add_argument("--to", required=True, choices=list(FORMS), help=forms)
    parser.add_argument("--out", required=True, help="the folder to write; it must not exist")
    parser.add_argument(
        "--dtype",
        type=str | None,
        default=None,
        help="of the weights; null: as they are saved, in gguf float32",
    )
    parser.add_argument(
        "--base", type=str, help="with peft: a name on the Hugging Face hub, or a folder"
    )
    return parser
