"""What does transformers make of a folder? Asked in a process of its own, see `their_side`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor


def ask(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Let transformers compute.

    Args:
        request: `folder`, `dtype` and `rows` of ids for logits; `texts`, `typed` and `chats` for
            tokens

    Returns:
        `version`, and ids of `texts`, `typed`, `chats` and of the first text as a whole (`begun`);
        and logits by name: `wide.0`, ... in float32, `narrow.0`, ... in dtype.

    Raises:
        ValueError: transformers is not installed, or cannot load the folder.
    """
    with tempfile.TemporaryDirectory(prefix="lit-llm-proof-") as scratch:
        logits = Path(scratch) / "logits"
        answer = _run({**request, "logits": str(logits)}, Path(scratch))
        return answer, {name: tensor.clone() for name, tensor in load_file(logits).items()}


class TokenizerFacts(NamedTuple):
    """What transformers makes of the tokenizer files of a folder."""

    content: str
    """The tokenizer.json that it uses: not always the one that lies there, for of some families it
    is built anew, of the vocabulary and of settings in tokenizer_config.json"""

    special: dict[str, str]
    """How `bos_token`, `eos_token` and others are written"""

    written: list[str | None]
    """What the chat template makes of some conversations, None where it refuses; empty if there is
    no template"""


def ask_tokenizer(folder: Path, chats: Sequence[dict[str, Any]] = ()) -> TokenizerFacts:
    """Let transformers read a tokenizer.

    Args:
        folder: holds the files of a tokenizer
        chats: conversations, each with `messages` and whether to open an `answer`

    Raises:
        ValueError: as `ask`.
    """
    request = {"folder": str(folder.absolute()), "chats": list(chats)}
    with tempfile.TemporaryDirectory(prefix="lit-llm-proof-") as scratch:
        return TokenizerFacts(**_run(request, Path(scratch)))


def _run(request: dict[str, Any], scratch: Path) -> dict[str, Any]:
    package = Path(__file__).resolve().parents[3]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    place = scratch / "request.json"
    request |= {"answer": str(scratch / "answer.json")}
    place.write_text(json.dumps(request), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "lit_llm.checkpoint.hf.their_side", place],
        # offline: what stands in the folder has to do
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,  # transformers asks there whether to run code of the folder
        capture_output=True,
        text=True,
    )
    if found.returncode < 0:
        raise ValueError(
            f"transformers was ended by signal {-found.returncode} while it used "
            f"{request['folder']}: is there memory enough for the model?"
        )
    if found.returncode:
        said = [line for line in found.stderr.splitlines() if line.strip()] or ["no reason"]
        if "No module named 'transformers'" in said[-1]:
            raise ValueError(
                "the proof that nothing has changed needs the package transformers: "
                "pip install 'lit-llm[hf]'"
            )
        raise ValueError(f"transformers cannot use {request['folder']}: {said[-1][:300]}")
    return json.loads((scratch / "answer.json").read_bytes())
