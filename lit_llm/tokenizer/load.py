"""How does a checkpoint carry its tokenizer, a class of the user's own included?"""

from __future__ import annotations

import json
from pathlib import Path

from lit_llm.tokenizer.base import Tokenizer, class_path
from lit_llm.tokenizer.named import import_named

FILE = "tokenizer_class.json"


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer's files and the name of its class into `folder`, which exists.

    Raises:
        ValueError: the class could not be imported again; nothing is written.
    """
    path = class_path(type(tokenizer))
    if path.startswith("__main__.") or "<locals>" in path:
        raise ValueError(
            f"{path} cannot be imported by a later run: "
            "move the class into a file of its own, at its top level"
        )
    tokenizer.save(folder)
    (folder / FILE).write_text(json.dumps({"class_path": path}) + "\n", encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote into `folder`.

    Imports the module of the class; calls nothing in it that is no Tokenizer.

    Raises:
        ValueError: there is none, or its class cannot be imported or is no Tokenizer.
    """
    file = folder / FILE
    if not file.is_file():
        raise ValueError(f"no tokenizer in {folder}: {FILE} is missing")
    try:
        path = str(json.loads(file.read_bytes())["class_path"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} does not name a class: {error!r}") from None
    try:
        cls = import_named(path)
    except ValueError as error:
        raise ValueError(f"{file} names the class of a tokenizer: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, Tokenizer)):
        raise ValueError(f"{file} names {path}, which is no lit_llm.tokenizer.Tokenizer")
    return cls.load(folder)
