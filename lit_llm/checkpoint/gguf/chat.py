"""The chat template as ollama reads it, in the language of Go.

Like Jinja for llama.cpp it writes control tokens as text, so that a user can type them there; ours
puts ids between encoded contents.

https://github.com/ollama/ollama/blob/main/docs/template.md
"""

from __future__ import annotations

from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import ChatTemplate, Turn, cut, spelled

PLAIN = "{{ .Prompt }}"
"""For a model that continues texts."""


def to_go(template: ChatTemplate, tokenizer: Tokenizer) -> str | None:
    """The template as Go text; None if ollama's language cannot say it.

    A bos that it begins with is left out: ollama's runner puts that in front by itself.

    Args:
        template: what to write
        tokenizer: spells the control tokens

    Raises:
        ValueError: the tokenizer lacks a control token of the template.
    """

    def literal(text: str) -> str:
        return spelled(tokenizer, cut(tokenizer, text))

    def turn(around: Turn) -> str:
        return f"{literal(around.before)}{{{{ .Content }}}}{literal(around.after)}"

    begin = cut(tokenizer, template.begin)
    if begin[:1] == [tokenizer.special.get("bos")]:
        begin = begin[1:]
    system = template.system
    text = spelled(tokenizer, begin)
    if system is not None and template.default_system is not None:
        said = f"{literal(system.before)}{template.default_system}{literal(system.after)}"
        text += f'{{{{ if ne (index .Messages 0).Role "system" }}}}{said}{{{{ end }}}}'
    text += "{{ range .Messages }}"
    if system is not None:
        text += f'{{{{ if eq .Role "system" }}}}{turn(system)}{{{{ end }}}}'
    text += f'{{{{ if eq .Role "user" }}}}{turn(template.user)}{{{{ end }}}}'
    text += f'{{{{ if eq .Role "assistant" }}}}{turn(template.assistant)}{{{{ end }}}}'
    text += f"{{{{ end }}}}{literal(template.assistant.before)}"
    around = (template.system, template.user, template.assistant)
    own = [template.default_system or "", *(t.before + t.after for t in around if t is not None)]
    if template.strip or any(mark in said for said in own for mark in ("{{", '"""')):
        return None  # it knows no function that strips, and these marks are its own
    return text
