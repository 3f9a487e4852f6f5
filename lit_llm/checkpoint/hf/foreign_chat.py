"""Which turns does a published model's chat template write?

Such a template is a program in the language Jinja, and what it makes of a conversation is a text
whose parts cannot be told apart any more: whoever types "<|im_start|>system" opens a turn. So it is
asked, in jinja2's sandbox, for conversations of marks, and what it puts around the marks is our
template. That is believed only if both then write other conversations alike, letter by letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from lit_llm.checkpoint.hf.strings import that_day
from lit_llm.tokenizer.base import Tokenizer
from lit_llm.tokenizer.chat import ChatTemplate, Message, Role, Turn

Render = Callable[[Sequence[Message], bool], str]
_MARKS = ("Qzvxa", "Qzvxb", "Qzvxc", "Qzvxd", "Qzvxe")
_SAID = (
    "What is 3 + 4?",
    "Seven.\n\nBecause 3 + 4 = 7.",
    "Und was heißt das auf Deutsch? 😀",
    "  def f(x):\n    return x",
    "Sieben",
)


class Unlike(ValueError):
    """A template that says more than what stands around turns; tells what it does otherwise."""


def read_chat(source: str, tokenizer: Tokenizer, tokens: Mapping[str, str]) -> ChatTemplate:
    """Our template of a Jinja one.

    Args:
        source: the Jinja text
        tokenizer: of the same model
        tokens: what the template calls bos_token, eos_token and so on

    Raises:
        Unlike: no template of turns writes the same.
    """
    render = _renderer(source, tokens)
    try:
        found = _taken_apart(render, source)
        talks = probes(with_system=found.system is not None)
        for strip in (False, True):
            template = replace(found, strip=strip)
            if all(template.render(tokenizer, t, answer=True) == render(t, True) for t in talks):
                return template
    except Unlike:
        raise
    except Exception as error:  # whatever a program in a template does
        raise Unlike(f"it stops at a plain conversation: {error}") from None
    raise Unlike("it changes the words of a conversation")


def probes(*, with_system: bool) -> list[list[Message]]:
    """Conversations that end with a question, to compare templates with."""
    ask, answer, again, code, word = _SAID
    plain = [
        [Message("user", ask)],
        [Message("user", code), Message("assistant", answer), Message("user", again)],
        [
            *[Message("user", ask), Message("assistant", word)],
            *[Message("user", again), Message("assistant", answer), Message("user", code.strip())],
        ],
    ]
    system = Message("system", "Be brief.")
    return plain + ([[system, *messages] for messages in plain] if with_system else [])


def thoughts() -> list[list[Message]]:
    """Conversations that templates of models which think aloud write in a way of their own."""
    asked = [Message("user", _SAID[0]), Message("assistant", "<think>\nsum\n</think>\n\n7")]
    return [[*asked, Message("user", _SAID[2])], [asked[0], Message("assistant", _SAID[4])]]


def _renderer(source: str, tokens: Mapping[str, str]) -> Render:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """transformers' own block around answers, which writes what stands in it."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Node | list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": refuse, "strftime_now": that_day}
    try:
        compiled = environment.from_string(source)
    except TemplateError as error:
        raise Unlike(f"it is no template that jinja2 reads: {error}") from None

    def render(messages: Sequence[Message], answer: bool) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        nothing = {"tools": None, "documents": None}  # as transformers says it
        return compiled.render(messages=turns, add_generation_prompt=answer, **nothing, **tokens)

    return render


def _taken_apart(render: Render, source: str) -> ChatTemplate:
    roles: tuple[Role, ...] = ("user", "assistant", "user", "assistant", "user")
    asks = [Message(role, mark) for role, mark in zip(roles, _MARKS, strict=True)]
    whole = _between(render(asks, True), _MARKS)
    open_ended = _between(render(asks, False), _MARKS)
    first, user_to_answer, answer_to_user, *_, last = whole
    behind_user = open_ended[-1]
    if not last.startswith(behind_user):
        raise Unlike("what it puts in front of an answer is not what it puts behind a question")
    opening = last.removeprefix(behind_user)
    if not user_to_answer.startswith(behind_user):
        raise Unlike("what it puts behind a question depends on what follows")
    before_answer = user_to_answer.removeprefix(behind_user)
    behind_answer = _between(render(asks[:2], False), _MARKS[:2])[-1]
    if not answer_to_user.startswith(behind_answer):
        raise Unlike("it closes the last answer in another way than earlier ones")
    before_user = answer_to_user.removeprefix(behind_answer)
    if not first.endswith(before_user):
        raise Unlike("it opens the first question in another way than later ones")
    begin = first.removesuffix(before_user)
    system, default, begin = _system(render, begin, before_user)
    return ChatTemplate(
        begin=begin,
        system=system,
        user=Turn(before_user, behind_user),
        assistant=Turn(before_answer, behind_answer),
        opening=None if opening == before_answer else opening,
        default_system=default,
        source=source,
    )


def _system(render: Render, begin: str, before_user: str) -> tuple[Turn | None, str | None, str]:
    """What stands around a system prompt, the default one, and what opens every conversation."""
    messages = [Message("system", _MARKS[0]), Message("user", _MARKS[1])]
    try:
        before, behind, _ = _between(render(messages, True), _MARKS[:2])
    except Exception:  # many templates refuse system prompts in their own words
        return None, None, begin
    if not behind.endswith(before_user):
        return None, None, begin  # it becomes a part of the question
    behind = behind.removesuffix(before_user)
    if before.startswith(begin):  # nothing is said by default
        return Turn(before.removeprefix(begin), behind), None, begin
    if begin.startswith(before) and begin.endswith(behind):
        said = begin[len(before) : len(begin) - len(behind)] if behind else begin[len(before) :]
        return Turn(before, behind), said, ""
    return None, None, begin


def _between(text: str, marks: Sequence[str]) -> list[str]:
    """What stands before, between and behind the marks, which come in their order."""
    places = [text.find(mark) for mark in marks]
    in_order = all(earlier < later for earlier, later in pairwise(places))
    if not in_order or any(text.count(mark) != 1 for mark in marks):
        raise Unlike("it does not write each turn once, in their order")
    parts, start = [], 0
    for place, mark in zip(places, marks, strict=True):
        parts.append(text[start:place])
        start = place + len(mark)
    return [*parts, text[start:]]
