"""How do other programs write a conversation as our template does?

transformers, llama.cpp and whoever serves their models read a template in the language Jinja. Of a
published model it is the text that came with it; of ours it is written here.
"""

from __future__ import annotations

from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import ChatTemplate, Turn, cut, spelled


def to_jinja(template: ChatTemplate, tokenizer: Tokenizer, *, marks_answers: bool = True) -> str:
    """The template as Jinja text, in which control tokens are spelled out.

    Args:
        template: what to write
        tokenizer: spells the control tokens
        marks_answers: put what the assistant says into a `generation` block, from which
            `apply_chat_template(return_assistant_tokens_mask=True)` of transformers knows what is
            learned; other programs do not know such blocks

    Raises:
        ValueError: the tokenizer lacks a control token of the template.
    """
    if template.source is not None:
        return template.source
    words = "message['content'] | trim" if template.strip else "message['content']"

    def literal(text: str) -> str:
        return _quoted(spelled(tokenizer, cut(tokenizer, text)))

    def turn(around: Turn) -> str:
        return f"{{{{ {literal(around.before)} + ({words}) + {literal(around.after)} }}}}"

    default = ""
    if template.system is None:
        system = "{{ raise_exception('this model takes no system prompt') }}"
    else:
        system = turn(template.system)
        if template.default_system is not None:
            around = template.system
            said = literal(around.before + template.default_system + around.after)
            default = f"{{% if messages[0]['role'] != 'system' %}}{{{{ {said} }}}}{{% endif %}}"
    header = literal(template.assistant.before)
    stop, rest = _first_control(tokenizer, template.assistant.after)
    rest = f"{{{{ {_quoted(rest)} }}}}" if rest else ""
    answer = f"{{{{ ({words}) + {_quoted(stop)} }}}}"
    if marks_answers:
        answer = f"{{% generation %}}{answer}{{% endgeneration %}}"
    return (
        f"{{{{ {literal(template.begin)} }}}}{default}"
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{system}"
        f"{{% elif message['role'] == 'user' %}}{turn(template.user)}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ {header} }}}}{answer}{rest}"
        "{% else %}{{ raise_exception('roles are system, user and assistant') }}{% endif %}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {literal(template.opens)} }}}}{{% endif %}}"
    )


def _first_control(tokenizer: Tokenizer, literal: str) -> tuple[str, str]:
    """What is learned behind an answer, and what is not."""
    parts = cut(tokenizer, literal)
    end = next((i + 1 for i, part in enumerate(parts) if isinstance(part, int)), len(parts))
    return spelled(tokenizer, parts[:end]), spelled(tokenizer, parts[end:])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
