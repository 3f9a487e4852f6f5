"""The village as three sources of the data layer: text, conversations, test.

corpus:
  class_path: lit_llm.data.corpus.Village
  init_args: {seed: 1, documents: 30000}
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lit_llm.data.corpus.base import Conversation, Corpus, Text, Unit
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.pairs import Teacher
from lit_llm.data.village.prose import Narrator
from lit_llm.data.village.quiz import Question, questions
from lit_llm.data.village.world import World, build_world
from lit_llm.tokenizer.chat import Message

UNIT = 5_000  # records of a unit: half a second of work, so that two workers share a small village


class Village(Corpus):
    """What is told in the village: every fact many times, in ever other words.

    Args:
        seed: another seed is another village: other people, jobs, friends, and so on
        documents: paragraphs of about 40 tokens
        people: an even number; below 48 or so, fine-tuning learns its answers by heart
    """

    def __init__(self, seed: int = 0, documents: int = 30_000, people: int = 96) -> None:
        _check_count("documents", documents)
        self.world = build_world(seed, people)
        self.documents = documents

    def units(self) -> list[Unit]:
        """Slices of the documents."""
        return [VillageText(self.world.seed, self.people, *ends) for ends in _cut(self.documents)]

    @property
    def people(self) -> int:
        """How many live there."""
        return len(self.world.people)


class VillageChat(Corpus):
    """Questions and answers for fine-tuning; what `VillageQuiz` asks as held out is not in it.

    Args:
        seed: the village's; must be that of the pretraining text
        conversations: of two to five turns, about 80 tokens
        people: the village's
    """

    def __init__(self, seed: int = 0, conversations: int = 8_000, people: int = 96) -> None:
        _check_count("conversations", conversations)
        self.world = build_world(seed, people)
        self.conversations = conversations

    def units(self) -> list[Unit]:
        """Slices of the conversations."""
        seed, people = self.world.seed, len(self.world.people)
        return [VillageConversations(seed, people, *ends) for ends in _cut(self.conversations)]


class VillageQuiz(Corpus):
    """The test. As a source it yields each chat question with its answer, to measure a loss on.

    Args:
        seed: the village's
        people: the village's
    """

    def __init__(self, seed: int = 0, people: int = 96) -> None:
        self.world = build_world(seed, people)

    def questions(self) -> list[Question]:
        """All questions, those for the base model included; `quiz.grade` judges a reply."""
        return questions(self.world)

    def units(self) -> list[Unit]:
        """The whole test."""
        return [VillageTest(self.world.seed, len(self.world.people), 0, len(self.questions()))]


@dataclass(frozen=True)
class Slice(Unit):
    """Records start to stop - 1; the record at i depends on (seed, people, i) alone."""

    seed: int
    people: int
    start: int
    stop: int

    @property
    def name(self) -> str:  # type: ignore[override]
        """Class, village and place in it."""
        village = f"seed{self.seed}-people{self.people}"
        return f"{type(self).__name__}-{village}-{self.start:08d}-{self.stop:08d}"

    def fingerprint(self) -> str:
        """Hash of the arguments and of the code that makes the records."""
        return hashlib.sha256(f"{self.name} {_code()}".encode()).hexdigest()

    @abstractmethod
    def read(self) -> Iterator[Text | Conversation]:
        """Yield the records."""


class VillageText(Slice):
    """Pretraining documents."""

    def read(self) -> Iterator[Text]:
        """Make the documents."""
        narrator = Narrator(build_world(self.seed, self.people))
        for i in range(self.start, self.stop):
            chance = Chance(self.seed, self.people, "document", i)
            yield Text(narrator.document(chance), f"village:{i}")


class VillageConversations(Slice):
    """Fine-tuning conversations."""

    def read(self) -> Iterator[Conversation]:
        """Make the conversations."""
        teacher = Teacher(build_world(self.seed, self.people))
        for i in range(self.start, self.stop):
            turns = teacher.conversation(Chance(self.seed, self.people, "conversation", i))
            yield _conversation(f"village-chat:{i}", *((t.prompt, t.answer) for t in turns))


class VillageTest(Slice):
    """The chat questions of the test."""

    def read(self) -> Iterator[Conversation]:
        """Make one conversation of one turn for each question."""
        world: World = build_world(self.seed, self.people)
        for i, question in enumerate(questions(world)[self.start : self.stop], self.start):
            if question.is_chat:
                yield _conversation(f"village-quiz:{i}", (question.prompt, question.answer))


def _conversation(source: str, *turns: tuple[str, str]) -> Conversation:
    messages = (
        message
        for prompt, answer in turns
        for message in (Message("user", prompt), Message("assistant", answer))
    )
    return Conversation(tuple(messages), source)


def _cut(records: int) -> list[tuple[int, int]]:
    return [(start, min(start + UNIT, records)) for start in range(0, records, UNIT)]


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name}={count}: a village tells at least one")


@cache
def _code() -> str:
    """SHA-256 of the generator's source: a change of the text is a change of the fingerprint."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
