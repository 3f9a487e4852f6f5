"""Templates as published models have them, told by their turns.

The texts are written here, after the documented formats: ChatML, Llama 3, Zephyr, Mistral.
"""

from dataclasses import replace

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from lit_llm.checkpoint.hf.foreign_chat import Unlike, probes, read_chat
from lit_llm.tokenizer import HuggingFace, Message
from lit_llm.tokenizer.chat import Turn
from lit_llm.tokenizer.jinja import to_jinja
from tests.checkpoint.hf.published import CHATML

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|header|>", "<|/header|>"]

WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    + CHATML
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|header|>' + message['role'] + '<|/header|>\n\n' + message['content'] | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
    "{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> HuggingFace:
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(SPECIAL)
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    library.train_from_iterator([], trainer)
    path = tmp_path_factory.mktemp("chat") / "tokenizer.json"
    library.save(str(path))
    return HuggingFace(str(path))


@pytest.mark.parametrize(
    ("source", "begin", "system", "user", "assistant", "default", "strip"),
    [
        (
            *(CHATML, "", Turn("<|im_start|>system\n", "<|im_end|>\n")),
            *(Turn("<|im_start|>user\n", "<|im_end|>\n"),),
            *(Turn("<|im_start|>assistant\n", "<|im_end|>\n"), None, False),
        ),
        (
            *(WITH_DEFAULT, "", Turn("<|im_start|>system\n", "<|im_end|>\n")),
            *(Turn("<|im_start|>user\n", "<|im_end|>\n"),),
            *(Turn("<|im_start|>assistant\n", "<|im_end|>\n"), "You help.", False),
        ),
        (
            *(LLAMA_3, "<s>", Turn("<|header|>system<|/header|>\n\n", "<|eot_id|>")),
            *(Turn("<|header|>user<|/header|>\n\n", "<|eot_id|>"),),
            *(Turn("<|header|>assistant<|/header|>\n\n", "<|eot_id|>"), None, True),
        ),
        (
            *(ZEPHYR, "", Turn("<|system|>\n", "</s>\n")),
            *(Turn("<|user|>\n", "</s>\n"), Turn("<|assistant|>\n", "</s>\n"), None, False),
        ),
        (MISTRAL, "<s>", None, Turn("[INST] ", " [/INST]"), Turn("", "</s>"), None, False),
    ],
    ids=["chatml", "default system", "llama 3", "zephyr", "mistral"],
)
def test_turns_are_told_from_the_text_around_marks(
    source, begin, system, user, assistant, default, strip, tokenizer
):
    template = read_chat(source, tokenizer, TOKENS)
    assert (template.begin, template.system, template.user) == (begin, system, user)
    assert (template.assistant, template.default_system) == (assistant, default)
    assert (template.strip, template.source) == (strip, source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ nothing", "no template that jinja2 reads"),
        ("{{ raise_exception('never') }}", "stops at a plain conversation: never"),
        ("{{ messages[0]['content'] }}", "each turn once"),
        (CHATML.replace("message['content']", "message['content'] * 2"), "each turn once"),
        (CHATML.replace("message['content']", "message['content'] | upper"), "each turn once"),
        (
            CHATML.replace("message['content']", "message['content'].replace('3', '4')"),
            "changes the words",
        ),
    ],
)
def test_a_template_that_is_more_than_turns_is_told(source, said, tokenizer):
    with pytest.raises(Unlike, match=said):
        read_chat(source, tokenizer, TOKENS)


def test_a_template_cannot_leave_its_sandbox(tokenizer):
    harm = "{{ ''.__class__.__mro__[1].__subclasses__() }}" + CHATML
    with pytest.raises(Unlike, match="stops at a plain conversation"):
        read_chat(harm, tokenizer, TOKENS)


def test_what_is_compared_begins_with_a_system_prompt_where_there_is_a_place():
    assert all(talk[-1].role == "user" for talk in probes(with_system=True))
    assert sum(talk[0] == Message("system", "Be brief.") for talk in probes(with_system=True)) == 3
    assert not any(m.role == "system" for talk in probes(with_system=False) for m in talk)


def test_the_next_answer_may_be_opened_in_a_way_of_its_own(tokenizer):
    spaced = MISTRAL.replace("{{ message['content'] + eos", "{{ ' ' + message['content'] + eos")
    template = read_chat(spaced, tokenizer, TOKENS)
    assert (template.assistant, template.opening) == (Turn(" ", "</s>"), "")
    thinks = CHATML.replace("'<|im_start|>assistant\n' }}", "'<|im_start|>assistant\n<think>' }}")
    template = read_chat(thinks, tokenizer, TOKENS)
    assert template.opening == "<|im_start|>assistant\n<think>"
    assert template.assistant.before == "<|im_start|>assistant\n"
    talk = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    text = to_jinja(replace(template, source=None), tokenizer, marks_answers=False)
    assert read_chat(text, tokenizer, TOKENS).opening == template.opening
    written = template.render(tokenizer, talk, answer=True)
    assert written.count("<think>") == 1
    assert written.endswith("<think>")


def test_a_date_is_always_the_same(tokenizer):
    dated = "{{ strftime_now('%d %b %Y') + '\n' }}" + CHATML
    template = read_chat(dated, tokenizer, TOKENS)
    assert template.render(tokenizer, [Message("user", "a")], answer=False).startswith(
        "26 Jul 2024"
    )


def test_a_template_that_fails_at_some_words_is_told_like_any_other(tokenizer):
    odd = CHATML.replace(
        "{% for message in messages %}",
        "{% for message in messages %}{% if '😀' in message['content'] %}{{ no.such }}{% endif %}",
    )
    with pytest.raises(Unlike, match="stops at a plain conversation"):
        read_chat(odd, tokenizer, TOKENS)
