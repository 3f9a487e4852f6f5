"""The chat template, for programs that fill in templates: they write the control tokens as text.

So they let a user type one, where ours does not: it puts ids between encoded contents.
"""

from __future__ import annotations

from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import ChatTemplate

ROLES = ("system", "user", "assistant")


def jinja(tokenizer: Tokenizer, spelled: dict[str, str]) -> str:
    """The template as llama.cpp reads it.

    Args:
        tokenizer: has all control tokens of a chat
        spelled: how each of its control tokens is written, by name
    """
    own = getattr(ChatTemplate, "jinja", None)  # until ChatTemplate has it
    if own is not None:
        return own(ChatTemplate(), tokenizer)
    role = "".join(
        f"{{%- {'if' if index == 0 else 'elif'} message['role'] == '{name}' -%}}"
        f"{{{{- {spelled[name]!r} -}}}}"
        for index, name in enumerate(ROLES)
    )
    return (
        f"{{{{- {spelled['bos']!r} -}}}}"
        "{%- for message in messages -%}"
        f"{role}{{%- endif -%}}"
        f"{{{{- message['content'] + {spelled['end']!r} -}}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {spelled['assistant']!r} -}}}}{{%- endif -%}}"
    )


def go(spelled: dict[str, str]) -> str:
    """The same as ollama reads it, whose runner puts bos in front by itself.

    https://github.com/ollama/ollama/blob/main/docs/template.md
    """
    role = "".join(
        f'{{{{ {"if" if index == 0 else "else if"} eq .Role "{name}" }}}}{spelled[name]}'
        for index, name in enumerate(ROLES)
    )
    turn = f"{role}{{{{ end }}}}{{{{ .Content }}}}{spelled['end']}"
    return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}{spelled['assistant']}"


PLAIN_GO = "{{ .Prompt }}"
"""For a model that continues texts."""
