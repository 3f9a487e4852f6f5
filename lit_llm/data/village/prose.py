"""Pretraining documents: portraits, gossip, small stories, and what everybody knows.

No document asks a question: how questions are asked and answered is left to fine-tuning.
"""

from lit_llm.data.village import knowledge, statements, tense
from lit_llm.data.village.chance import Chance
from lit_llm.data.village.grammar import article, sentence
from lit_llm.data.village.knowledge import Item
from lit_llm.data.village.world import KINDS, Person, World

MIX = {"portrait": 0.48, "gossip": 0.11, "story": 0.26, "facts": 0.08, "sums": 0.07}
"""Shares of the documents."""
LINES = 0.5
"""Share of the documents with a sentence on each line, so that names are met at the start of a
line, where answers have them: to a tokenizer a name with a space before it is another name."""


class Narrator:
    """Tells the documents of one village."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._facts = knowledge.common_facts()
        self._sums = knowledge.sums()

    def document(self, chance: Chance) -> str:
        """One document of a few sentences."""
        return ("\n" if chance.happens(LINES) else " ").join(self._told(chance))

    def _told(self, chance: Chance) -> list[str]:
        kind = chance.weighted(list(MIX), list(MIX.values()))
        if kind == "portrait":
            return portrait(chance, chance.pick(self.world.people))
        if kind == "gossip":
            return gossip(chance, self.world)
        if kind == "story":
            return story(chance, self.world)
        return lesson(chance, self._facts if kind == "facts" else self._sums)


def portrait(chance: Chance, person: Person) -> list[str]:
    """Three to six facts of one person; the first sentence says who it is."""
    kinds = chance.sample(KINDS, chance.between(3, 6))
    told: list[str] = []
    one_name = False  # after a friend was named too, "he" might be the friend
    while kinds:
        now = [kinds.pop() for _ in range(2 if len(kinds) > 1 and chance.happens(0.2) else 1)]
        if len(now) == 2:
            told.append(statements.double(chance, person, *now))
        elif one_name and chance.happens(0.5):
            told.append(statements.pronominal(chance, person, *now))
        else:
            told.append(statements.named(chance, person, *now))
        one_name = "friend" not in now
    return told


def gossip(chance: Chance, world: World) -> list[str]:
    """Single facts of several people."""
    people = chance.sample(world.people, chance.between(3, 6))
    return [statements.named(chance, person, chance.pick(KINDS)) for person in people]


def lesson(chance: Chance, items: list[Item]) -> list[str]:
    """Two or three items, each in two sentences: what was said is said again in other words."""
    told = chance.sample(items, chance.between(2, 3))
    return [text for item in told for text in chance.sample(item.sentences, 2)]


def story(chance: Chance, world: World) -> list[str]:
    """What somebody did with a thing, and often how another told of it; no fact is contradicted.

    Telling again what was told teaches to copy, and telling it later the past tense.
    """
    person, other = chance.sample(world.people, 2)
    form = chance.weighted(("again", "later", "outing"), (0.2, 0.6, 0.2))
    if form == "outing":
        return _outing(chance, person, other)
    change = tense.change(chance, [person.name], quiz=False)
    if form == "again":
        said = chance.pick(("saw it and said", "told the others", "said to everyone"))
        return [change.past, f'{other.name} {said}: "{change.past}"']
    when = chance.pick(("Later", "In the evening", "The next day"))
    return [change.present, f'{when} {other.name} said: "{change.past}"']


def _outing(chance: Chance, person: Person, other: Person) -> list[str]:
    names = person.name, other.name
    free = [t for t in tense.THINGS if not any(tense.is_held_out(name, t) for name in names)]
    thing, scene = chance.pick(free), chance.pick(tense.SCENES)
    verb = chance.pick(list(tense.VERBS.values()))
    who = chance.pick(("{name} the {job}", "{name} and {his} {pet} {pet_name}", "{name}"))
    return [
        sentence("one day", person.fill(who), "went to the", scene),
        f"There {person.name} {verb} {article(thing)}.",
        chance.pick(
            (
                f"{other.name} saw the {thing} and was happy.",
                f"Then {other.name} came with some {other.food}.",
                f"Then {person.he} went home to the {person.colour} house.",
                f"That evening {person.name} was {person.hobby} again.",
            )
        ),
    ]
