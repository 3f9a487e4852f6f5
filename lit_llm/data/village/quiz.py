"""The test: questions with their right answers, of kinds that are counted apart.

    held_*      (person, question) that fine-tuning never asked, in wordings that it used
    seen_*      some that it did ask
    wording_*   asked in the wording that it never used
    both_*      neither the wording nor the (person, question) was used
    cloze_*     the start of a plain sentence, for a base model: every (person, fact)
    unknown     about people who do not exist, with names that no training text contains
    about       about people as a whole, whom fine-tuning never asked about so
    tense, sum, fact   skills: new sentences; sums and facts that fine-tuning never asked

The star stands for the kind of question: job, home, pet, food, hobby, friend.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lit_llm.data.village import knowledge, statements, tense
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.names import stranger
from lit_llm.data.village.pairs import REFUSAL
from lit_llm.data.village.split import Split, split_world
from lit_llm.data.village.wordings import ABOUT_PERSON, PORTRAIT, held_out, trained
from lit_llm.data.village.world import KINDS, Person, World

SAMPLE = 20  # questions of a kind that is not asked exhaustively
STRANGERS = 140
SENTENCES = 60


@dataclass(frozen=True)
class Question:
    """One question of the test."""

    prompt: str
    answer: str
    """The right answer, or one of them."""
    accepted: tuple[str, ...]
    """Every right answer; of `about`, every sentence that a right answer may contain."""
    kind: str
    is_chat: bool = True
    """A chat turn to be answered; else the start of a sentence to be completed."""

    @property
    def group(self) -> str:
        """held, seen, wording, both, cloze, unknown or skill."""
        first = self.kind.partition("_")[0]
        return first if first in GROUPS else "skill"

    def grade(self, reply: str) -> bool:
        """Whether a reply is right, to the letter.

        An answer is compared whole, without white space around it. Of a completion the first
        words count, for a sentence may go on: "baker and likes bread" completes "Anna works as
        a". Of a portrait each sentence has to be true, and none may be told twice.
        """
        if self.kind == "about":
            told = re.split(r"(?<=\.)\s+", reply.strip())
            return len(told) == len(set(told)) and all(line in self.accepted for line in told)
        if self.is_chat:
            return reply.strip() in self.accepted
        words = _words(reply)
        return any(words[: len(end)] == end for end in map(_words, self.accepted))


GROUPS = ("held", "seen", "wording", "both", "cloze", "unknown")


def is_refusal(reply: str) -> bool:
    """Whether the reply says that it does not know."""
    return reply.strip() == REFUSAL


def questions(world: World) -> list[Question]:
    """The whole test of a village, in a fixed order."""
    split = split_world(world)
    chance = Chance(world.seed, "quiz")
    return [
        *_about_people(chance, world, split),
        *_about_strangers(chance, world),
        *_portraits(chance, split),
        *_tense(chance, world),
        *_knowledge(chance, world.seed),
    ]


def _about_people(chance: Chance, world: World, split: Split) -> Iterator[Question]:
    for person, kind in split.held:
        for wording in trained(ABOUT_PERSON[kind]):
            yield _question(person, kind, wording, "held")
        yield _question(person, kind, held_out(ABOUT_PERSON[kind]), "both")
    for kind in KINDS:
        asked = [person for person, asked_kind in split.asked if asked_kind == kind]
        for person in chance.sample(asked, min(SAMPLE, len(asked))):
            yield _question(person, kind, chance.pick(trained(ABOUT_PERSON[kind])), "seen")
        for person in chance.sample(asked, min(SAMPLE, len(asked))):
            yield _question(person, kind, held_out(ABOUT_PERSON[kind]), "wording")
    for person in world.people:
        for kind in KINDS:
            start, end = (person.fill(part) for part in statements.CLOZE[kind])
            yield Question(start, end, (end,), f"cloze_{kind}", is_chat=False)


def _question(person: Person, kind: str, wording: str, group: str) -> Question:
    answer = statements.answer(person, kind)
    return Question(person.fill(wording), answer, (answer,), f"{group}_{kind}")


def _about_strangers(chance: Chance, world: World) -> Iterator[Question]:
    residents = world.residents
    wordings = [*ABOUT_PERSON.values(), PORTRAIT]
    for i in range(STRANGERS):
        name = stranger(chance, residents, quiz=True)
        prompt = chance.pick(trained(wordings[i % len(wordings)])).format(name=name)
        yield Question(prompt, REFUSAL, (REFUSAL,), "unknown")


def _portraits(chance: Chance, split: Split) -> Iterator[Question]:
    for person in split.unportrayed:
        true = [s for kind in KINDS for s in statements.simple_sentences(person, kind)]
        prompt = person.fill(chance.pick(trained(PORTRAIT)))
        yield Question(prompt, statements.answer(person, "job"), tuple(true), "about")


def _tense(chance: Chance, world: World) -> Iterator[Question]:
    names = [person.name for person in world.people]
    for kind, wordings, n in (
        ("tense", trained(tense.WORDINGS), SENTENCES),
        ("wording_tense", tense.WORDINGS[-1:], SAMPLE),
    ):
        for _ in range(n):
            change = tense.change(chance, names, quiz=True)
            prompt = chance.pick(wordings).format(sentence=change.present)
            yield Question(prompt, change.past, (change.past,), kind)


def _knowledge(chance: Chance, seed: int) -> Iterator[Question]:
    for kind, items in (("sum", knowledge.sums()), ("fact", knowledge.common_facts())):
        asked = []
        for item in items:
            if knowledge.is_held_out(seed, item):
                prompt = chance.pick(trained(item.wordings))
                yield Question(prompt, item.answer, (item.answer,), kind)
            else:
                asked.append(item)
        for item in chance.sample(asked, min(SAMPLE, len(asked))):
            prompt = held_out(item.wordings)
            yield Question(prompt, item.answer, (item.answer,), f"wording_{kind}")


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s.,!?]+", text)
