import pytest

from lit_llm.tokenizer import ChatTemplate, Message, SentencePiece
from lit_llm.tokenizer.chat import Turn
from lit_llm.tokenizer.jinja import to_jinja

CHATML = ChatTemplate(
    begin="",
    system=Turn("<s>system\n", "</s>\n"),
    user=Turn("<s>user\n", "</s>\n"),
    assistant=Turn("<s>assistant\n", "</s>\n"),
    default_system="Don't \\ lie.\n",
    strip=True,
)
NO_SYSTEM = ChatTemplate(begin="<s>", system=None, user=Turn("[INST] ", " [/INST]"))
TALK = [
    Message("user", "who's \\n there?\n "),
    Message("assistant", "'anna'"),
    Message("user", "  and?"),
]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    return SentencePiece(vocab_size=300).train(["who is there? anna bakes bread"] * 9)


def rendered(text: str, messages: list[Message], *, answer: bool) -> str:
    """What the machinery of transformers makes of a template."""
    from transformers.utils.chat_template_utils import render_jinja_template

    turns = [vars(message) for message in messages]
    found, _ = render_jinja_template(
        conversations=[turns], chat_template=text, add_generation_prompt=answer
    )
    return found[0]


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize("template", [ChatTemplate(), CHATML, NO_SYSTEM], ids=["own", "ml", "inst"])
def test_the_text_writes_conversations_as_the_template_does(template, marks, answer, tokenizer):
    text = to_jinja(template, tokenizer, marks_answers=marks)
    assert ("generation" in text.replace("add_generation_prompt", "")) == marks
    found = rendered(text, TALK, answer=answer)
    assert found == template.render(tokenizer, TALK, answer=answer)
    assert found.startswith("<s>")
    if template.system is not None:
        told = [Message("system", "be brief"), *TALK]
        found = rendered(text, told, answer=answer)
        assert found == template.render(tokenizer, told, answer=answer)


def test_a_system_prompt_that_has_no_place_is_refused_on_both_sides(tokenizer):
    told = [Message("system", "be brief"), *TALK]
    with pytest.raises(ValueError, match="no place for a system prompt"):
        NO_SYSTEM.encode(tokenizer, told)
    with pytest.raises(Exception, match="takes no system prompt"):
        rendered(to_jinja(NO_SYSTEM, tokenizer), told, answer=True)


def test_the_text_that_a_published_template_came_with_is_kept(tokenizer):
    template = ChatTemplate(source="{{ messages }}")
    assert to_jinja(template, tokenizer) == "{{ messages }}"
