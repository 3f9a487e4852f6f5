"""Ollama's template writes what ours does, with the control tokens as text."""

import re

import pytest

from lit_llm.checkpoint.gguf.chat import to_go
from lit_llm.tokenizer import ChatTemplate, Message
from lit_llm.tokenizer.chat import Turn

TURNS = [
    Message("system", "One word."),
    Message("user", " Who\n\nbakes {{ it }}? "),
    Message("assistant", "Anna"),
    Message("user", "'Why?'"),
]
OTHER = ChatTemplate(
    begin="{bos}Chat\n",
    system=Turn("[{system}", "]\n"),
    user=Turn("Q: ", "{end}\n"),
    assistant=Turn("A: ", "{end}{eos}\n"),
    default_system="Be kind.",
)
BLOCK = re.compile(
    r'\{\{ if (eq \.Role|ne \(index \.Messages 0\)\.Role) "(\w+)" \}\}(.*?)\{\{ end \}\}', re.S
)


def fill_in(template: str, messages: list[Message]) -> str:
    """As Go's text/template does, of which this knows no more than is used."""
    before, loop, after = re.fullmatch(
        r"(.*?)\{\{ range \.Messages \}\}(.*)\{\{ end \}\}(.*)", template, re.S
    ).groups()
    assert BLOCK.sub("", loop) == ""
    text = BLOCK.sub(lambda block: block[3] if messages[0].role != block[2] else "", before)
    for message in messages:
        for _, role, turn in BLOCK.findall(loop):
            text += turn.replace("{{ .Content }}", message.content) if role == message.role else ""
    return text + after


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("template", [ChatTemplate(), OTHER], ids=["ours", "other"])
def test_it_writes_the_same_behind_the_bos_that_ollama_adds(sentencepiece, template, n):
    written = fill_in(to_go(template, sentencepiece), TURNS[-n:])
    assert "<s>" + written == template.render(sentencepiece, TURNS[-n:], answer=True)


def test_our_own_reads_as_follows(sentencepiece):
    assert to_go(ChatTemplate(), sentencepiece) == (
        "{{ range .Messages }}"
        '{{ if eq .Role "system" }}<system>{{ .Content }}<end>{{ end }}'
        '{{ if eq .Role "user" }}<user>{{ .Content }}<end>{{ end }}'
        '{{ if eq .Role "assistant" }}<assistant>{{ .Content }}<end>{{ end }}'
        "{{ end }}<assistant>"
    )


def test_a_template_without_system_prompts_writes_none(sentencepiece):
    assert '"system"' not in to_go(ChatTemplate(system=None), sentencepiece)


@pytest.mark.parametrize(
    "template", [ChatTemplate(strip=True), ChatTemplate(user=Turn("{user}{{", "{end}"))]
)
def test_what_ollamas_language_cannot_say_is_left_to_ollama(sentencepiece, template):
    assert to_go(template, sentencepiece) is None
