import re

import pytest

from lit_llm.data.village import statements
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.world import KINDS, Person

ANNA = Person(
    name="Anna",
    he="she",
    his="her",
    job="baker",
    colour="red",
    place="river",
    pet="cat",
    pet_name="Momo",
    food="bread",
    hobby="sewing",
    friend="Tom",
)
VALUES = {
    "job": ["baker"],
    "home": ["red", "river"],
    "pet": ["cat", "Momo"],
    "food": ["bread"],
    "hobby": ["sewing"],
    "friend": ["Tom"],
}


def test_answers_say_who_and_what():
    assert [statements.answer(ANNA, kind) for kind in KINDS] == [
        "Anna is a baker.",
        "Anna lives in a red house by the river.",
        "Anna has a cat called Momo.",
        "Anna likes bread.",
        "Anna enjoys sewing.",
        "Anna is best friends with Tom.",
    ]
    assert statements.plain_pronominal(ANNA, "friend") == "She is best friends with Tom."


@pytest.mark.parametrize("kind", KINDS)
def test_every_statement_holds_the_whole_fact(kind):
    chance = Chance("statements", kind)
    for _ in range(300):
        named = statements.named(chance, ANNA, kind)
        pronominal = statements.pronominal(chance, ANNA, kind)
        assert "Anna" in named
        assert re.match(r"(She|Her) ", pronominal)
        for text in (named, pronominal):
            assert all(re.search(rf"\b{value}\b", text) for value in VALUES[kind]), text
            assert re.fullmatch(r"[A-Z][A-Za-z, ]+\.", text), text


def test_two_facts_fit_one_sentence():
    text = statements.double(Chance("double"), ANNA, "job", "food")
    assert text.startswith("Anna ")
    assert "baker" in text
    assert text.endswith(".")
    assert "bread" in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_cloze_test_is_a_sentence_that_the_village_uses(kind):
    whole = ANNA.fill(" ".join(statements.CLOZE[kind])) + "."
    assert whole in statements.simple_sentences(ANNA, kind)


def test_there_are_many_ways_to_tell_a_fact():
    chance = Chance("ways")
    ways = {statements.named(chance, ANNA, "job") for _ in range(3000)}
    assert len(ways) > 40
