"""merge: the adapters of a LoRA run and the weights they belong to, as one plain checkpoint."""

from __future__ import annotations

from pathlib import Path

from lit_llm.commands.small_parser import SmallParser

EXAMPLE = "python cli.py merge --ckpt_path checkpoints/LORA_RUN --out checkpoints/MERGED"


def run(command: str, arguments: list[str]) -> None:
    """Run merge."""
    settings = parser(command).parse_args(arguments)
    from lit_llm.checkpoint.base import is_adapted
    from lit_llm.checkpoint.bundle import read_meta
    from lit_llm.checkpoint.consolidate import consolidate
    from lit_llm.checkpoint.find import asked_by, resolve

    with asked_by("--ckpt_path"):
        source, target = resolve(settings.ckpt_path), Path(settings.out)
    if not is_adapted(read_meta(source)):
        raise ValueError(f"{source} has no adapters to merge: it is a whole model already")
    told = consolidate(source, target)
    print(f"{source} -> {target}")
    for line in told or ():
        print(f"  {line}")


def parser(command: str) -> SmallParser:
    """What merge can be told."""
    parser = SmallParser(command, EXAMPLE)
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these keys")
    parser.add_argument("--ckpt_path", required=True, help="a checkpoint of a LoRA run, or the run")
    parser.add_argument("--out", required=True, help="the checkpoint to write; must not exist")
    return parser
