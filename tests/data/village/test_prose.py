import re
from collections import Counter

import pytest

from lit_llm.data.village import tense
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.prose import Narrator
from lit_llm.data.village.quiz import questions
from lit_llm.data.village.statements import simple_sentences
from lit_llm.data.village.world import KINDS, World, build_world

DOCUMENTS = 8_000
SENTENCE = r'[A-Z][A-Za-z, ]+(\.|: "([A-Z][A-Za-z, ]+\. ?)+")'


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(21)


@pytest.fixture(scope="module")
def documents(world) -> list[str]:
    narrator = Narrator(world)
    return [narrator.document(Chance("test", i)) for i in range(DOCUMENTS)]


def test_documents_are_whole_sentences(documents):
    for text in documents:
        assert re.fullmatch(rf"{SENTENCE}([ \n]{SENTENCE})*", text), text
        assert "  " not in text


def test_articles_follow_the_first_sound(documents):
    for text in documents:
        assert not re.search(r"\b[Aa] [aeiou]", text), text
        assert not re.search(r"\b[Aa]n [^aeiou]", text), text


def test_pronouns_agree_with_whom_they_mean(world, documents):
    pronoun = {person.name: person.he for person in world.people}
    agreeing = {"he": "he", "his": "he", "she": "she", "her": "she"}
    checked = 0
    for text in documents:
        meant, clear = None, False
        for sentence in re.split(r"""[.:]"?\s""", text):
            words = re.findall(r"\w+", sentence)
            named = [word for word in words if word in pronoun]
            if words[0] in ("He", "She", "His", "Her"):
                assert clear, f"whom does {words[0]} mean? {text}"
            elif named:
                meant, clear = named[0], len(named) == 1
            used = {agreeing[word.lower()] for word in words if word.lower() in agreeing}
            assert used <= {pronoun.get(meant)}, text
            checked += len(used)
    assert checked > DOCUMENTS / 2


def test_no_document_asks_a_question(documents):
    assert not any("?" in text for text in documents)


def test_documents_hardly_repeat(documents):
    assert len(set(documents)) > 0.9 * DOCUMENTS


def test_no_story_joins_a_name_and_a_thing_that_are_kept_for_the_quiz(documents):
    verb = "|".join([*tense.VERBS, *tense.VERBS.values()])
    told = re.compile(rf"([A-Z]\w+) (?:{verb}) (?:an?|the) (?:\w+ )?({'|'.join(tense.THINGS)})\b")
    joined = {match for text in documents for match in told.findall(text)}
    assert len(joined) > 1000
    assert not [pair for pair in joined if tense.is_held_out(*pair)]


def test_every_fact_is_told_many_times(world, documents):
    facts = {
        sentence: (person.name, kind)
        for person in world.people
        for kind in KINDS
        for sentence in simple_sentences(person, kind)
        if person.name in sentence
    }
    told = Counter(
        facts[sentence]
        for text in documents
        for sentence in re.split(r"(?<=\.)\s", text)
        if sentence in facts
    )
    # Only sentences of one fact that say the name; about as many again are told otherwise.
    # A recipe of 30,000 documents has four times as many.
    assert len(told) == 96 * 6
    assert min(told.values()) >= 6
    assert sum(told.values()) / len(told) > 18


def test_a_cloze_test_has_no_other_right_answer_in_the_text(world, documents):
    tests = [q for q in questions(world) if not q.is_chat]
    found = 0
    text = "\n".join(documents)
    for question in tests:
        for match in re.finditer(rf"{re.escape(question.prompt)}([^.]*)\.", text):
            assert question.grade(match[1]), match[0]
            found += 1
    assert found > 5 * len(tests)
