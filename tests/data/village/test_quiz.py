from collections import Counter

import pytest

from lit_llm.data.village.names import POOL
from lit_llm.data.village.quiz import Question, is_refusal, questions
from lit_llm.data.village.split import split_world
from lit_llm.data.village.world import KINDS, build_world


@pytest.fixture(scope="module")
def quiz() -> list[Question]:
    return questions(build_world(41))


def of_kind(quiz: list[Question], kind: str) -> list[Question]:
    return [question for question in quiz if question.kind == kind]


def test_everything_held_out_is_asked_in_every_trained_wording_and_in_the_other(quiz):
    counts = Counter(question.kind for question in quiz)
    for kind in KINDS:
        held = 20 if kind == "friend" else 19
        assert counts[f"held_{kind}"] == 5 * held
        assert counts[f"both_{kind}"] == held
        assert counts[f"seen_{kind}"] == counts[f"wording_{kind}"] == 20
        assert counts[f"cloze_{kind}"] == 96
    assert counts["unknown"] == 140
    assert counts["about"] == 19
    assert counts["tense"] == 60
    assert min(counts["sum"], counts["fact"]) >= 10


def test_no_question_is_asked_twice_as_another_kind(quiz):
    assert len({question.prompt for question in quiz}) >= len(quiz) - 5  # 60 + 20 chance sentences


def test_groups_gather_kinds(quiz):
    groups = Counter(question.group for question in quiz)
    assert groups["held"] == 5 * (5 * 19 + 20)
    assert groups["cloze"] == 96 * 6
    assert groups["unknown"] == 140
    assert set(groups) == {"held", "seen", "wording", "both", "cloze", "unknown", "skill"}


def test_half_of_the_strangers_have_ordinary_names(quiz):
    ordinary = sum(
        any(word.strip(".?") in POOL for word in question.prompt.split())
        for question in of_kind(quiz, "unknown")
    )
    assert 45 <= ordinary <= 95


def test_every_right_answer_is_graded_right(quiz):
    for question in quiz:
        assert question.grade(question.answer), question
        assert question.grade(f" {question.answer}\n"), question
        assert question.answer in question.accepted


def test_answers_count_to_the_letter():
    question = Question("What does Anna do?", "Anna is a baker.", ("Anna is a baker.",), "held_job")
    assert not question.grade("Anna is a baker")
    assert not question.grade("Anna is a baker. She likes bread.")
    assert not question.grade("Tom is a baker.")
    assert not question.grade("")


def test_a_completion_may_go_on_after_the_right_words():
    question = Question("Anna works as a", "baker", ("baker",), "cloze_job", is_chat=False)
    assert question.grade(" baker.")
    assert question.grade("baker and likes bread. She")
    assert not question.grade(" bakery.")
    assert not question.grade(" good baker.")
    assert not question.grade("")


def test_each_sentence_of_a_portrait_must_be_true():
    true = ("Anna is a baker.", "She likes bread.", "She enjoys sewing.")
    question = Question("Tell me about Anna.", true[0], true, "about")
    assert question.grade("Anna is a baker. She enjoys sewing.")
    assert not question.grade("Anna is a baker. She enjoys hiking.")
    assert not question.grade("Anna is a baker. Anna is a baker.")
    assert not question.grade("")


def test_a_refusal_is_told_by_its_words():
    assert is_refusal(" I don't know.")
    assert not is_refusal("Anna is a baker.")


def test_seen_questions_are_asked_in_fine_tuning():
    world = build_world(42)
    asked = {(person.name, kind) for person, kind in split_world(world).asked}
    for question in questions(world):
        if question.group in ("seen", "wording") and question.kind.partition("_")[2] in KINDS:
            name = next(
                p.name for p in world.people if p.name in question.prompt.strip("?.").split()
            )
            assert (name, question.kind.partition("_")[2]) in asked
