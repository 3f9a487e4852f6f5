"""import: a published model as a checkpoint, to fine-tune and to ask."""

from __future__ import annotations

from pathlib import Path

from lit_llm.commands.small_parser import SmallParser

EXAMPLE = "python cli.py import --from DOWNLOADED --out checkpoints/NAME"


def run(command: str, arguments: list[str]) -> None:
    """Run import."""
    parser = SmallParser(command, EXAMPLE)
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these keys")
    parser.add_argument(
        "--from",
        required=True,
        help="a folder with config.json, safetensors and tokenizer: Llama, Mistral, Qwen2 or Qwen3",
    )
    parser.add_argument("--out", required=True, help="the checkpoint to write; must not exist")
    settings = parser.parse_args(arguments)
    from lit_llm.checkpoint.hf.read import import_hf

    source, target = Path(settings["from"]), Path(settings.out)
    told = import_hf(source, target)
    print(f"{source} -> {target}")
    for line in told:
        print(f"  {line}")
