"""The sources: same bytes everywhere, and each record on its own."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest

from lit_llm.data.corpus.base import Conversation, Text
from lit_llm.data.village.corpus import Village, VillageChat, VillageQuiz, VillageText

GOLDEN = Path(__file__).parents[2] / "golden" / "village.json"


def read(corpus) -> list:
    return [record for unit in corpus.units() for record in unit.read()]


def sha256(records: list) -> str:
    lines = [
        record.text
        if isinstance(record, Text)
        else json.dumps([(m.role, m.content) for m in record.messages])
        for record in records
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_same_seed_gives_the_recorded_bytes(update_golden):
    """If a change of the text is meant: pytest tests/data/village --update-golden."""
    quiz = [[q.prompt, q.kind, *q.accepted] for q in VillageQuiz(seed=3).questions()]
    found = {
        "text": sha256(read(Village(seed=3, documents=2000))),
        "chat": sha256(read(VillageChat(seed=3, conversations=1000))),
        "quiz": hashlib.sha256(json.dumps(quiz).encode()).hexdigest(),
    }
    if update_golden:
        GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_another_seed_gives_other_text():
    first, second = (read(Village(seed=seed, documents=50)) for seed in (1, 2))
    assert not {record.text for record in first} & {record.text for record in second}


def test_a_record_does_not_depend_on_where_its_unit_begins():
    whole = list(VillageText(5, 48, 0, 30).read())
    assert [record.source for record in whole] == [f"village:{i}" for i in range(30)]
    assert list(VillageText(5, 48, 11, 19).read()) == whole[11:19]
    assert [r.text for r in read(Village(5, documents=30, people=48))] == [r.text for r in whole]


def test_units_cover_everything_once_and_read_alike_twice():
    units = Village(seed=1, documents=10_007).units()
    assert len({unit.name for unit in units}) == len(units) > 1
    sources = [record.source for unit in units for record in unit.read()]
    assert sources == [f"village:{i}" for i in range(10_007)]
    last = pickle.loads(pickle.dumps(units[-1]))
    assert list(last.read()) == list(units[-1].read())


def test_a_fingerprint_follows_the_arguments():
    prints = {
        unit.fingerprint()
        for corpus in (
            Village(seed=1, documents=9),
            Village(seed=2, documents=9),
            Village(seed=1, documents=8),
            Village(seed=1, documents=9, people=48),
            VillageChat(seed=1, conversations=9),
            VillageQuiz(seed=1),
        )
        for unit in corpus.units()
    }
    assert len(prints) == 6
    assert Village(seed=1, documents=9).units()[0].fingerprint() in prints


def test_conversations_take_turns():
    for record in read(VillageChat(seed=1, conversations=200)):
        assert isinstance(record, Conversation)
        roles = [message.role for message in record.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert 2 <= len(roles) // 2 <= 5


def test_the_quiz_as_a_source_holds_its_chat_questions():
    quiz = VillageQuiz(seed=1)
    chat = [question for question in quiz.questions() if question.is_chat]
    records = read(quiz)
    assert [record.messages[0].content for record in records] == [q.prompt for q in chat]
    assert [record.messages[1].content for record in records] == [q.answer for q in chat]


@pytest.mark.parametrize("source", [Village, VillageChat])
def test_nothing_to_tell_is_refused(source):
    with pytest.raises(ValueError, match="=0: a village tells at least one"):
        source(0, 0)
