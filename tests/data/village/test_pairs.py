"""The split is honest: whatever fine-tuning asks and tells, what is held out is not in it."""

import re

import pytest

from lit_llm.data.village import knowledge, tense
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.names import is_quiz_name
from lit_llm.data.village.pairs import REFUSAL, Pair, Teacher
from lit_llm.data.village.quiz import questions
from lit_llm.data.village.wordings import ABOUT_PERSON, PORTRAIT, held_out
from lit_llm.data.village.world import build_world

CONVERSATIONS = 3_000
VALUE = {
    "job": "a {job}",
    "home": "{colour} house by the {place}",
    "pet": "{pet} called {pet_name}",
    "food": "{food}",
    "hobby": "{hobby}",
    "friend": "{friend}",
}


@pytest.fixture(scope="module", params=[0, 31, 32])
def teacher(request) -> Teacher:
    return Teacher(build_world(request.param))


@pytest.fixture(scope="module")
def pairs(teacher) -> list[Pair]:
    return [pair for i in range(CONVERSATIONS) for pair in teacher.conversation(Chance("test", i))]


def test_no_held_out_person_and_question_is_asked_in_any_wording(teacher, pairs):
    forbidden = {
        person.fill(wording)
        for person, kind in teacher.split.held
        for wording in ABOUT_PERSON[kind]
    }
    forbidden |= {p.fill(wording) for p in teacher.split.unportrayed for wording in PORTRAIT}
    assert len(forbidden) == 115 * 6 + 19 * 5
    assert not forbidden & {pair.prompt for pair in pairs}


def test_no_answer_tells_a_held_out_fact(teacher, pairs):
    held: dict[str, list[re.Pattern]] = {person.name: [] for person in teacher.world.people}
    for person, kind in teacher.split.held:
        held[person.name].append(re.compile(rf"\b{person.fill(VALUE[kind])}\b"))
    looked = 0
    for pair in pairs:
        about = next((word for word in re.findall(r"\w+", pair.answer) if word in held), None)
        for value in held.get(about, []):
            looked += 1
            assert not value.search(pair.answer), pair
    assert looked > CONVERSATIONS


def test_the_check_above_would_find_a_leak(teacher):
    answers = [question.answer for question in questions(teacher.world)]
    for person, kind in teacher.split.held:
        assert any(person.name in text and person.fill(VALUE[kind]) in text for text in answers)


def test_the_last_wording_is_never_used(teacher, pairs):
    prompts = {pair.prompt for pair in pairs}
    for wordings in (*ABOUT_PERSON.values(), PORTRAIT):
        last = held_out(wordings)
        assert not {person.fill(last) for person in teacher.world.people} & prompts
    items = [*knowledge.common_facts(), *knowledge.sums()]
    assert not {held_out(item.wordings) for item in items} & prompts
    start = held_out(tense.WORDINGS).format(sentence="")
    assert not any(prompt.startswith(start) for prompt in prompts)


def test_held_out_knowledge_and_sentences_are_never_asked(teacher, pairs):
    prompts, answers = {pair.prompt for pair in pairs}, {pair.answer for pair in pairs}
    for item in (*knowledge.common_facts(), *knowledge.sums()):
        if knowledge.is_held_out(teacher.world.seed, item):
            assert item.answer not in answers
            assert not set(item.wordings) & prompts
    quiz = {q.answer for q in questions(teacher.world) if q.kind.endswith("tense")}
    assert not quiz & answers


def test_no_name_of_the_quiz_is_met_in_training(teacher, pairs):
    words = {word for pair in pairs for word in re.findall(r"\w+", pair.prompt + pair.answer)}
    for question in questions(teacher.world):
        if question.kind == "unknown":
            names = re.findall(r"[A-Z]\w+", question.prompt)[1:]
            assert names
            assert not set(names) & words, question
            assert all(is_quiz_name(name) for name in names)


def test_who_does_not_exist_is_refused_and_who_does_is_not(teacher, pairs):
    residents = teacher.world.residents
    refused = [pair for pair in pairs if pair.answer == REFUSAL]
    assert len(refused) > 0.1 * len(pairs)
    for pair in pairs:
        known = bool(residents & set(re.findall(r"\w+", pair.prompt)))
        assert not (known and pair.answer == REFUSAL), pair


def test_strangers_have_many_names(pairs):
    refused = [pair.prompt for pair in pairs if pair.answer == REFUSAL]
    assert len({re.findall(r"[A-Z]\w+", prompt)[-1] for prompt in refused}) > 0.4 * len(refused)


def test_one_question_has_one_answer_but_for_portraits(teacher, pairs):
    answers: dict[str, str] = {}
    portraits = {p.fill(wording) for p in teacher.world.people for wording in PORTRAIT}
    for pair in pairs:
        if pair.prompt not in portraits:
            assert answers.setdefault(pair.prompt, pair.answer) == pair.answer


def test_answers_are_grammatical(pairs):
    for pair in pairs:
        for text in (pair.prompt, pair.answer):
            assert text[0].isupper()
            assert text[-1] in ".?!"
            assert "  " not in text
            assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text
