"""Who lives in the village, and all that is true of them: a function of the seed."""

from dataclasses import dataclass

from lit_llm.data.village.chance import Chance
from lit_llm.data.village.names import POOL, resident_names

# Every job, place and so on is a short word of its own, so that a small vocabulary holds it whole.
JOBS = (
    "baker miller teacher doctor farmer fisher hunter potter weaver smith carpenter painter singer "
    "tailor gardener driver shepherd cook writer builder nurse sailor clown judge"
).split()
COLOURS = ["red", "blue", "green", "yellow", "white", "black", "pink", "brown"]
PLACES = ["river", "bridge", "church", "well", "tower", "lake", "market", "gate"]
PETS = ["cat", "dog", "goat", "hen", "duck", "horse", "rabbit", "parrot"]
PET_NAMES = (
    "Momo Rex Pip Luna Coco Fig Tiny Bella Rusty Daisy Snow Ginger Pepper Zip Bo Kiki Bubbles "
    "Waffle Mango Nori Teddy Olive Rocket Pearl"
).split()
FOODS = (  # none has a plural, so "the favourite food is {food}" is right for all
    "bread cheese honey rice soup cake jam porridge salad pasta chocolate toast cabbage pumpkin "
    "corn fish"
).split()
HOBBIES = (
    "swimming dancing reading fishing drawing running knitting rowing climbing riding skating "
    "cycling juggling whistling sewing hiking"
).split()

KINDS = ("job", "home", "pet", "food", "hobby", "friend")
"""What can be asked about a person."""

FEWEST = 24  # below about this many, fine-tuning memorises its pairs: 21 of 64 held out were right


@dataclass(frozen=True)
class Person:
    """One villager. Templates use the field names: "{name} is a {job}"."""

    name: str
    he: str
    his: str
    job: str
    colour: str
    place: str
    pet: str
    pet_name: str
    food: str
    hobby: str
    friend: str

    def fill(self, template: str) -> str:
        """Put this person's facts into a template."""
        return template.format_map(vars(self))


@dataclass(frozen=True)
class World:
    """The village of one seed."""

    seed: int
    people: tuple[Person, ...]

    @property
    def residents(self) -> frozenset[str]:
        """The names of all people; only ask whether one is in it, for a set has no order."""
        return frozenset(person.name for person in self.people)


def build_world(seed: int, people: int = 96) -> World:
    """Draw the people and their facts.

    Every value is dealt as often as any other, so that no answer is a good guess. Best friends
    come in pairs: each is the best friend of the other.

    Raises:
        ValueError: `people` is odd, too small, or more than there are names.
    """
    if people % 2 or not FEWEST <= people <= len(POOL):
        raise ValueError(
            f"people={people}: a village has an even number of people from {FEWEST} to "
            f"{len(POOL)}, for best friends come in pairs and names are not used twice"
        )
    names = resident_names(seed, people)
    partners = [names[i + 1 if i % 2 == 0 else i - 1] for i in range(people)]

    def dealt(field: str, values: list[str]) -> list[str]:
        return Chance(seed, "world", field).dealt(values, people)

    columns = zip(
        names,
        dealt("job", JOBS),
        dealt("colour", COLOURS),
        dealt("place", PLACES),
        dealt("pet", PETS),
        dealt("pet_name", PET_NAMES),
        dealt("food", FOODS),
        dealt("hobby", HOBBIES),
        partners,
        strict=True,
    )
    return World(
        seed,
        tuple(
            Person(row[0], POOL[row[0]], {"he": "his", "she": "her"}[POOL[row[0]]], *row[1:])
            for row in columns
        ),
    )
