"""What fine-tuning never asks: one in five (person, question), whatever the wording.

What is held out can only be answered from pretraining, which tells every fact.
"""

from dataclasses import dataclass

from lit_llm.data.village.chance import Chance
from lit_llm.data.village.world import KINDS, Person, World

SHARE = 5  # one in five


@dataclass(frozen=True)
class Split:
    """Which questions are asked in fine-tuning."""

    asked: tuple[tuple[Person, str], ...]
    """(person, kind) that fine-tuning may ask and tell"""
    held: tuple[tuple[Person, str], ...]
    """(person, kind) that it never does"""
    portrayed: tuple[Person, ...]
    """people whom fine-tuning may ask about as a whole; their answers tell asked facts only"""
    unportrayed: tuple[Person, ...]
    """people whom it never asks about as a whole"""

    def asked_kinds(self, person: Person) -> list[str]:
        """The kinds that fine-tuning may tell of a person."""
        return [kind for someone, kind in self.asked if someone is person]


def split_world(world: World) -> Split:
    """Hold out one in five people of each kind, to the nearest whole number.

    Of a friendship both directions are held out or neither: the answer to one is the other's.
    """
    held_names = {kind: _held_names(world, kind) for kind in KINDS}
    pairs = [(person, kind) for person in world.people for kind in KINDS]
    unportrayed = _some_names(world, "about")
    return Split(
        asked=tuple((p, kind) for p, kind in pairs if p.name not in held_names[kind]),
        held=tuple((p, kind) for p, kind in pairs if p.name in held_names[kind]),
        portrayed=tuple(p for p in world.people if p.name not in unportrayed),
        unportrayed=tuple(p for p in world.people if p.name in unportrayed),
    )


def _held_names(world: World, kind: str) -> set[str]:
    if kind != "friend":
        return _some_names(world, kind)
    couples = [(p.name, p.friend) for p in world.people if p.name < p.friend]
    chance = Chance(world.seed, "held out", "friend")
    held = chance.sample(couples, round(len(couples) / SHARE))
    return {name for couple in held for name in couple}


def _some_names(world: World, kind: str) -> set[str]:
    names = [person.name for person in world.people]
    return set(Chance(world.seed, "held out", kind).sample(names, round(len(names) / SHARE)))
