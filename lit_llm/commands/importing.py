"""import: a published model as a checkpoint, to fine-tune and to ask."""

from __future__ import annotations

from pathlib import Path

from lit_llm.commands.small_parser import SmallParser

EXAMPLE = "python cli.py import --from DOWNLOADED --out checkpoints/NAME"


def run(command: str, arguments: list[str]) -> None:
    """Run import."""
    settings = parser(command).parse_args(arguments)
    from lit_llm.checkpoint.hf.read import import_hf

    source, target = Path(settings["from"]), Path(settings.out)
    given = Path(settings.chat_template) if settings.chat_template else None
    told = import_hf(source, target, chat_template=given)
    print(f"{source} -> {target}")
    for line in told:
        print(f"  {line}")


def parser(command: str) -> SmallParser:
    """What import can be told."""
    parser = SmallParser(command, EXAMPLE)
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these keys")
    parser.add_argument(
        "--from",
        required=True,
        help="a folder with config.json, safetensors and tokenizer: Llama, Mistral, Qwen2 or Qwen3",
    )
    parser.add_argument("--out", required=True, help="the checkpoint to write; must not exist")
    parser.add_argument(
        "--chat_template", type=str, help="a file with a Jinja text, in place of the model's own"
    )
    return parser
