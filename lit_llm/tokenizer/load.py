"""How does a checkpoint carry its tokenizer, a class of the user's own included?"""

from __future__ import annotations

import json
from pathlib import Path

from lit_llm.tokenizer.base import Tokenizer, class_path
from lit_llm.tokenizer.chat import ChatTemplate
from lit_llm.tokenizer.named import import_named

FILE = "tokenizer_class.json"
CHAT_FILE = "chat_template.json"  # beside it, if the template is not our own


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
    if tokenizer.chat_template != ChatTemplate():
        text = json.dumps(tokenizer.chat_template.plain(), indent=2, ensure_ascii=False)
        (folder / CHAT_FILE).write_text(text + "\n", encoding="utf-8")
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
    tokenizer = cls.load(folder)
    if (chat := folder / CHAT_FILE).is_file():
        tokenizer.chat_template = _read_template(chat)
    return tokenizer


def _read_template(file: Path) -> ChatTemplate:
    try:
        return ChatTemplate.from_plain(json.loads(file.read_bytes()))
    except ValueError as error:  # bad JSON or bad UTF-8 too
        raise ValueError(f"{file} is damaged: {error}") from None
