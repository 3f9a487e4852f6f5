"""Fine-tuning conversations: questions in many wordings, each with its one right answer."""

from dataclasses import dataclass

from lit_llm.data.village import knowledge, statements, tense
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.names import stranger
from lit_llm.data.village.split import Split, split_world
from lit_llm.data.village.wordings import ABOUT_PERSON, PORTRAIT, trained
from lit_llm.data.village.world import KINDS, Person, World

REFUSAL = "I don't know."
MIX = {
    "person": 0.45,
    "stranger": 0.11,
    "portrait": 0.04,
    "tense": 0.17,
    "fact": 0.09,
    "sum": 0.12,
    "talk": 0.02,
}
"""Shares of the turns."""
SMALL_TALK = (
    ("Hello!", "Hello! What would you like to know?"),
    ("Good morning.", "Good morning! What would you like to know?"),
    ("Thank you.", "You are welcome."),
    ("Goodbye.", "Goodbye!"),
)


@dataclass(frozen=True)
class Pair:
    """One turn: what the user says, and what the assistant should."""

    prompt: str
    answer: str


class Teacher:
    """Makes the fine-tuning conversations of one village; asks nothing that is held out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.split: Split = split_world(world)
        self._residents = world.residents
        self._names = [person.name for person in world.people]
        self._facts = self._trained(knowledge.common_facts())
        self._sums = self._trained(knowledge.sums())

    def conversation(self, chance: Chance) -> list[Pair]:
        """Two to five turns about anything."""
        kinds, weights = list(MIX), list(MIX.values())
        return [
            self._turn(chance, chance.weighted(kinds, weights)) for _ in range(chance.between(2, 5))
        ]

    def _turn(self, chance: Chance, kind: str) -> Pair:
        if kind == "person":
            person, asked = chance.pick(self.split.asked)
            wording = chance.pick(trained(ABOUT_PERSON[asked]))
            return Pair(person.fill(wording), statements.answer(person, asked))
        if kind == "stranger":
            name = stranger(chance, self._residents, quiz=False)
            wordings = chance.pick([*ABOUT_PERSON.values(), PORTRAIT])
            return Pair(chance.pick(trained(wordings)).format(name=name), REFUSAL)
        if kind == "portrait":
            person = chance.pick(self.split.portrayed)
            prompt = person.fill(chance.pick(trained(PORTRAIT)))
            return Pair(prompt, portrait(chance, person, self.split.asked_kinds(person)))
        if kind == "tense":
            change = tense.change(chance, self._names, quiz=False)
            wording = chance.pick(trained(tense.WORDINGS))
            return Pair(wording.format(sentence=change.present), change.past)
        if kind == "talk":
            return Pair(*chance.pick(SMALL_TALK))
        item = chance.pick(self._facts if kind == "fact" else self._sums)
        return Pair(chance.pick(trained(item.wordings)), item.answer)

    def _trained(self, items: list[knowledge.Item]) -> list[knowledge.Item]:
        return [item for item in items if not knowledge.is_held_out(self.world.seed, item)]


def portrait(chance: Chance, person: Person, kinds: list[str]) -> str:
    """Tell up to three of the given facts, the friend not first: "he" would be the friend."""
    chosen = sorted(chance.sample(kinds, min(3, len(kinds))), key=KINDS.index)
    first, *others = chosen
    told = [statements.answer(person, first)]
    told += [statements.plain_pronominal(person, kind) for kind in others]
    return " ".join(told)
