"""Which chat template does an imported model get?

Its own, if our turns and transformers write the same conversations; else none, and the user is
told; or one that the user gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_llm.checkpoint.hf.foreign_chat import Unlike, probes, read_chat, thoughts
from lit_llm.checkpoint.hf.strings import DAY
from lit_llm.checkpoint.hf.witness import TokenizerFacts
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import ChatTemplate, Message


def _talk(messages: Sequence[Message], *, answer: bool) -> dict[str, Any]:
    return {"messages": [vars(message) for message in messages], "answer": answer}


THOUGHTS = [_talk(messages, answer=messages[-1].role == "user") for messages in thoughts()]
TALKS = [*(_talk(messages, answer=True) for messages in probes(with_system=True)), *THOUGHTS]
"""What our chat template is compared on with that of transformers."""


def take_chat(
    text: str | None, tokenizer: Tokenizer, facts: TokenizerFacts
) -> tuple[bool, list[str]]:
    """Give the tokenizer the chat template of its model; whether there is one, and what to say."""
    if text is None:
        return False, []
    try:
        if not facts.written:
            raise Unlike("transformers does not find it")
        template = read_chat(text, tokenizer, facts.special)
        unlike = _unlike(template, tokenizer, facts.written)
        if any(talk not in THOUGHTS for talk in unlike):
            raise Unlike("transformers writes a conversation in another way")
    except Unlike as error:
        return False, [
            f"its chat template is left out, for it does more than write turns ({error}): prompts "
            "are continued as plain text; --chat_template FILE gives another one"
        ]
    tokenizer.chat_template = template
    notes = []
    if unlike:
        notes.append("its chat template changes answers that think aloud; here they stay as said")
    if "strftime_now" in text:
        notes.append(f"its chat template says today's date; here it says {DAY:%d %b %Y} always")
    return True, notes


def _unlike(
    template: ChatTemplate, tokenizer: Tokenizer, written: Sequence[str | None]
) -> list[dict[str, Any]]:
    """The conversations that transformers writes in another way."""
    found = []
    for talk, theirs in zip(TALKS, written, strict=True):
        messages = [Message(**turn) for turn in talk["messages"]]
        if template.system is None and messages[0].role == "system":
            continue  # where we have no place for it, they may have one
        if template.render(tokenizer, messages, answer=talk["answer"]) != theirs:
            found.append(talk)
    return found


def give_chat(path: Path, tokenizer: Tokenizer, facts: TokenizerFacts) -> tuple[bool, list[str]]:
    """Give the tokenizer a chat template of the user's."""
    if not path.is_file():
        raise ValueError(f"no chat template {path}: give a file with a Jinja text")
    try:
        text = path.read_text(encoding="utf-8")
        tokenizer.chat_template = read_chat(text, tokenizer, facts.special)
    except (Unlike, UnicodeDecodeError) as error:
        raise ValueError(f"--chat_template {path} does more than write turns: {error}") from None
    return True, [f"chats are written as {path} says, which is not compared with anything"]
