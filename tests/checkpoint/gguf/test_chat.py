"""Both templates write what ours does, with the control tokens as text."""

import re

import jinja2
import pytest

from lit_llm.checkpoint.gguf import chat
from lit_llm.tokenizer import ChatTemplate, Message
from lit_llm.tokenizer.base import SPELLINGS

SPELLED = {name: spellings[0] for name, spellings in SPELLINGS.items()}
TURNS = [
    Message("system", "One word."),
    Message("user", " Who\n\nbakes {{ it }}? "),
    Message("assistant", "Anna"),
    Message("user", "'Why?'"),
]


def ours(tokenizer, messages) -> str:
    """What ids of our template stand for, control tokens spelled."""
    names = {id: SPELLED[name] for name, id in tokenizer.special.items()}
    ids = ChatTemplate().prompt(tokenizer, messages)
    return "".join(names.get(id) or tokenizer.token_bytes(id).decode() for id in ids)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_jinja_writes_what_we_write(sentencepiece, n):
    template = jinja2.Environment().from_string(chat.jinja(sentencepiece, SPELLED))
    turns = [vars(message) for message in TURNS[-n:]]
    written = template.render(
        messages=turns, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert written == ours(sentencepiece, TURNS[-n:])
    assert template.render(messages=turns, bos_token="<s>") == written.removesuffix("<assistant>")


def go(template: str, messages: list[Message]) -> str:
    """As Go's text/template fills it in, of which this knows no more than is used."""
    block = r"(.*?)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)"
    before, loop, after = re.fullmatch(block, template, re.S).groups()
    choice, content = loop.split("{{ end }}")
    roles = re.findall(r'\{\{ (if|else if) eq \.Role "(\w+)" \}\}([^{]*)', choice)
    assert [word for word, *_ in roles] == ["if", "else if", "else if"]
    spelled = {role: text for _, role, text in roles}
    turns = (spelled[m.role] + content.replace("{{ .Content }}", m.content) for m in messages)
    return before + "".join(turns) + after


@pytest.mark.parametrize("n", [1, 2, 4])
def test_ollamas_template_writes_the_same_behind_the_bos_that_ollama_adds(sentencepiece, n):
    written = go(chat.go(SPELLED), TURNS[-n:])
    assert "<s>" + written == ours(sentencepiece, TURNS[-n:])
