"""Pretraining documents: portraits, gossip, small stories, and what everybody knows.

No document asks a question: how questions are asked and answered is left to fine-tuning.
"""

from lit_llm.data.village import knowledge, statements
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.grammar import article, sentence
from lit_llm.data.village.tense import COLOURS, SCENES, THINGS, VERBS
from lit_llm.data.village.world import KINDS, Person, World

MIX = {"portrait": 0.62, "gossip": 0.14, "story": 0.08, "facts": 0.1, "sums": 0.06}
"""Shares of the documents."""


class Narrator:
    """Tells the documents of one village."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._facts = knowledge.common_facts()
        self._sums = knowledge.sums()

    def document(self, chance: Chance) -> str:
        """One document of a few sentences."""
        kind = chance.weighted(list(MIX), list(MIX.values()))
        if kind == "portrait":
            return portrait(chance, chance.pick(self.world.people))
        if kind == "gossip":
            return gossip(chance, self.world)
        if kind == "story":
            return story(chance, self.world)
        items = self._facts if kind == "facts" else self._sums
        told = chance.sample(items, chance.between(3, 6))
        return " ".join(chance.pick(item.sentences) for item in told)


def portrait(chance: Chance, person: Person) -> str:
    """Three to six facts of one person; the first sentence says who it is."""
    kinds = chance.sample(KINDS, chance.between(3, 6))
    told: list[str] = []
    last = ""
    while kinds:
        kind = kinds.pop()
        if kinds and chance.happens(0.2):
            told.append(statements.double(chance, person, kind, kind := kinds.pop()))
        elif told and last != "friend" and chance.happens(0.5):  # else "he" might be the friend
            told.append(statements.pronominal(chance, person, kind))
        else:
            told.append(statements.named(chance, person, kind))
        last = kind
    return " ".join(told)


def gossip(chance: Chance, world: World) -> str:
    """Single facts of several people."""
    people = chance.sample(world.people, chance.between(3, 6))
    return " ".join(statements.named(chance, person, chance.pick(KINDS)) for person in people)


def story(chance: Chance, world: World) -> str:
    """What two people did with a thing; it contradicts no fact."""
    person, other = chance.sample(world.people, 2)
    thing, colour, verb = chance.pick(THINGS), chance.pick(COLOURS), chance.pick(list(VERBS))
    if chance.happens(0.5):
        often = chance.pick(("every day", "every week", "in the morning", ""))
        told = [
            sentence(often, person.name, verb, article(colour), thing),
            f"Yesterday {person.name} {VERBS[verb]} {article(colour)} {thing} too.",
        ]
    else:
        scene = chance.pick(SCENES)
        who = chance.pick(("{name} the {job}", "{name} and {his} {pet} {pet_name}", "{name}"))
        told = [
            sentence("one day", person.fill(who), "went to the", scene),
            f"There {person.name} {VERBS[verb]} {article(thing)}.",
            chance.pick(
                (
                    f"{other.name} saw the {thing} and was happy.",
                    f"Then {other.name} came with some {other.food}.",
                    f"Then {person.he} went home to the {person.colour} house.",
                    f"That evening {person.name} was {person.hobby} again.",
                )
            ),
        ]
    return " ".join(told)
