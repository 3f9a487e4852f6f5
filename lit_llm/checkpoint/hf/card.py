"""README.md of an export: what the model is, what it learned from, how well, and what came before.

Said is what the checkpoint and its run's folder hold; where they hold nothing, nothing is said.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from lit_llm.checkpoint.bundle import read_meta
from lit_llm.checkpoint.find import resolve
from lit_llm.checkpoint.hf.prove import Proof
from lit_llm.model.config import GPTConfig
from lit_llm.model.size import size

CARD, METRICS = "data_card.json", "metrics.csv"
MOST_ANCESTORS = 20


def model_card(
    source: Path, meta: dict[str, Any], config: GPTConfig, proof: Proof, *, chat: bool, name: str
) -> str:
    """Write the card.

    Args:
        source: the checkpoint, in its run's folder
        meta: its description
        config: its network
        proof: that transformers computes the same
        chat: whether it was trained on conversations
        name: of the exported folder
    """
    sections = [
        _header(chat=chat),
        f"# {name}\n\n{_sentence(config, chat=chat)}",
        "## Use\n\n" + _usage(name, chat=chat),
        "## Network\n\n" + _table(_network(config)),
    ]
    if metrics := _metrics(source.parent / METRICS):
        sections.append("## Measured in training\n\n" + _table(metrics))
    if data := _data(source.parent / CARD):
        sections.append("## Data\n\n" + data)
    sections.append("## Lineage\n\n" + "\n".join(_lineage(source, meta)))
    sections.append("## Proof\n\n" + "\n".join(f"- {line}" for line in proof.lines()))
    return "\n\n".join(sections) + "\n"


def _header(*, chat: bool) -> str:
    tags = ["lit-llm", *(["conversational"] if chat else [])]
    listed = "\n".join(f"- {tag}" for tag in tags)
    return f"---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n{listed}\n---"


def _sentence(config: GPTConfig, *, chat: bool) -> str:
    kind = "chat model" if chat else "language model"
    millions = size(config).parameters / 1e6
    return (
        f"A {kind} with {millions:,.1f} million parameters and a context of "
        f"{config.max_seq_len:,} tokens, written by lit-llm."
    )


def _usage(name: str, *, chat: bool) -> str:
    if chat:
        ask = (
            'messages = [{"role": "user", "content": "What is three plus four?"}]\n'
            "inputs = tokenizer.apply_chat_template("
            'messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)'
        )
    else:
        ask = 'inputs = tokenizer("Once upon a time", return_tensors="pt")'
    return (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{name}")\n'
        f"{ask}\n"
        "output = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0]\n"
        'print(tokenizer.decode(output[inputs["input_ids"].shape[1] :], skip_special_tokens=True))'
        "\n"
        "```"
    )


def _network(config: GPTConfig) -> dict[str, Any]:
    counts = size(config)
    return {
        "parameters": f"{counts.parameters:,}",
        "layers": config.n_layer,
        "width": config.d_model,
        "query heads": config.n_head,
        "key/value heads": config.kv_heads,
        "channels per head": config.channels_per_head,
        "width inside the MLP": config.ff_dim,
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.max_seq_len:,} tokens",
        "embeddings": "tied" if config.tie_embeddings else "untied",
    }


def _metrics(path: Path) -> dict[str, Any]:
    """The last value of each metric that says how well the model does, and where training ended."""
    if not path.is_file():
        return {}
    last: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            last |= {key: value for key, value in row.items() if key and value}
    wanted = ("step", "tokens", "train/loss", "train/bits_per_byte", "val/")
    return {key: value for key, value in last.items() if key.startswith(wanted)}


def _data(path: Path) -> str:
    if not path.is_file():
        return ""
    parts = json.loads(path.read_bytes())
    rows = []
    for name, card in parts.items():
        train = card.get("train") or {}
        rows.append(
            f"| {name} | {train.get('documents', 0):,} | {train.get('bytes', 0):,} | "
            f"{train.get('tokens', 0):,} | {card.get('duplicates_removed', 0):,} |"
        )
    head = "| corpus | documents | bytes | tokens | duplicates left out |\n|---|---|---|---|---|"
    return "\n".join([head, *rows])


def _lineage(source: Path, meta: dict[str, Any]) -> list[str]:
    """This checkpoint and those whose weights it began with, the latest first."""
    lines: list[str] = []
    for _ in range(MOST_ANCESTORS):
        run = f"{source.parent.name}/{source.name}"
        imported = meta.get("imported")
        if imported:
            return [*lines, f"- {run}: imported from {imported['from']}"]
        corpora = [part.get("corpus", "") for part in (meta["data"].get("parts") or {}).values()]
        on = ", ".join(corpus.rpartition(".")[2] for corpus in corpora)
        lines.append(f"- {run}: step {meta['step']:,}{f', on {on}' if on else ''}")
        began = ((meta.get("config") or {}).get("model") or {}).get("init_from")
        if not began:
            return [*lines, "- before that: random weights"]
        try:
            source = resolve(began)
            meta = read_meta(source)
        except ValueError:
            return [*lines, f"- before that: {began}, which is no longer there"]
    return lines


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    )
