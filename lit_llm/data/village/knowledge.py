"""What everybody knows: capitals, opposites, animals, days, and the sums of small numbers.

Each item is told in several sentences and asked in several wordings. The first sentence is the
answer; the last wording is held out of fine-tuning, as it is for questions about people.
"""

from dataclasses import dataclass

from lit_llm.data.village.chance import Chance
from lit_llm.data.village.grammar import article, capital


@dataclass(frozen=True)
class Item:
    """One piece of common knowledge."""

    topic: str
    key: str
    """Two items with the same topic and key are one fact told in two directions."""
    sentences: tuple[str, ...]
    wordings: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The one right answer, whatever the wording."""
        return self.sentences[0]


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(left, right) for left, _, right in (word.partition("=") for word in text.split())]


CAPITALS = _pairs(
    "France=Paris Italy=Rome Spain=Madrid Germany=Berlin Austria=Vienna Greece=Athens Egypt=Cairo "
    "Japan=Tokyo China=Beijing Russia=Moscow Poland=Warsaw Norway=Oslo Finland=Helsinki "
    "Ireland=Dublin Portugal=Lisbon Hungary=Budapest Kenya=Nairobi Peru=Lima Cuba=Havana "
    "Canada=Ottawa"
)
OPPOSITES = _pairs(
    "hot=cold big=small fast=slow tall=short old=new wet=dry day=night up=down hard=soft "
    "full=empty light=dark early=late rich=poor strong=weak clean=dirty "
    "near=far thick=thin loud=quiet"
)
SOUNDS = _pairs(
    "cow=moo dog=woof cat=meow duck=quack sheep=baa pig=oink lion=roar bee=buzz frog=croak "
    "owl=hoot snake=hiss mouse=squeak"
)
YOUNG = _pairs(
    "cow=calf dog=puppy cat=kitten duck=duckling sheep=lamb horse=foal pig=piglet bear=cub "
    "goat=kid hen=chick swan=cygnet goose=gosling"
)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen"
).split()
LARGEST_TERM = 9


def common_facts() -> list[Item]:
    """All items but the sums."""
    return [
        *(_capital(*pair) for pair in CAPITALS),
        *(item for x, y in OPPOSITES for item in (_opposite(x, y, x), _opposite(y, x, x))),
        *(_sound(*pair) for pair in SOUNDS),
        *(_young(*pair) for pair in YOUNG),
        *(_day(day, DAYS[(i + 1) % 7]) for i, day in enumerate(DAYS)),
    ]


def sums() -> list[Item]:
    """Every sum of two numbers from zero to nine, in both orders."""
    terms = range(LARGEST_TERM + 1)
    return [_sum(i, j) for i in terms for j in terms]


def is_held_out(seed: int, item: Item) -> bool:
    """Whether fine-tuning never asks for this item; pretraining tells it all the same."""
    return Chance(seed, "knowledge", item.topic, item.key).happens(0.25)


def _capital(country: str, city: str) -> Item:
    return Item(
        "capital",
        country,
        (
            f"The capital of {country} is {city}.",
            f"{city} is the capital of {country}.",
            f"People who visit {country} like to see {city}, the capital.",
        ),
        (
            f"What is the capital of {country}?",
            f"Which city is the capital of {country}?",
            f"Tell me the capital of {country}.",
            f"What is the name of the capital of {country}?",
        ),
    )


def _opposite(word: str, other: str, key: str) -> Item:
    return Item(
        "opposite",
        key,
        (
            f"The opposite of {word} is {other}.",
            f"What is not {word} may be {other}.",
            f"{capital(word)} is the opposite of {other}.",
        ),
        (
            f"What is the opposite of {word}?",
            f"Which word is the opposite of {word}?",
            f"Tell me the opposite of {word}.",
            f"Which word means the opposite of {word}?",
        ),
    )


def _sound(animal: str, sound: str) -> Item:
    return Item(
        "sound",
        animal,
        (
            f"The {animal} says {sound}.",
            f"{capital(sound)}, says the {animal}.",
            f"When you hear {sound}, it is {article(animal)}.",
        ),
        (
            f"What does the {animal} say?",
            f"What sound does the {animal} make?",
            f"Tell me what the {animal} says.",
            f"Which sound does {article(animal)} make?",
        ),
    )


def _young(animal: str, young: str) -> Item:
    return Item(
        "young",
        animal,
        (
            f"A young {animal} is called {article(young)}.",
            f"The {animal} looks after its {young}.",
            f"{capital(article(young))} grows up to be {article(animal)}.",
        ),
        (
            f"What is a young {animal} called?",
            f"What do you call a young {animal}?",
            f"Tell me what a young {animal} is called.",
            f"What is the name of a young {animal}?",
        ),
    )


def _day(day: str, following: str) -> Item:
    return Item(
        "day",
        day,
        (
            f"{following} comes after {day}.",
            f"{day} comes before {following}.",
            f"After {day} it is {following}.",
        ),
        (
            f"What day comes after {day}?",
            f"Which day follows {day}?",
            f"Tell me the day after {day}.",
            f"Which day comes after {day}?",
        ),
    )


def _sum(i: int, j: int) -> Item:
    first, second, total = NUMBERS[i], NUMBERS[j], NUMBERS[i + j]
    return Item(
        "sum",
        f"{min(i, j)}+{max(i, j)}",
        (
            f"{capital(first)} plus {second} is {total}.",
            f"{capital(first)} and {second} make {total}.",
            f"Add {second} to {first} and you have {total}.",
            f"Take {first} and {second}. {capital(first)} plus {second} is {total}.",
        ),
        (
            f"What is {first} plus {second}?",
            f"How much is {first} plus {second}?",
            f"Add {first} and {second}.",
            f"Tell me what {first} plus {second} is.",
        ),
    )
