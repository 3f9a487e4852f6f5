"""One fact in many sentences: how the village tells what is true of a person.

The first phrase of each kind is the plain one: it is also the form of the answers.
"""

from lit_llm.data.village.chance import Chance
from lit_llm.data.village.grammar import capital, sentence
from lit_llm.data.village.world import Person

# What may follow a name or a pronoun.
VERB_PHRASES = {
    "job": (
        "is a {job}",
        "works as a {job}",
        "works in the village as a {job}",
        "earns {his} bread as a {job}",
        "has long been a {job}",
        "became a {job} years ago",
    ),
    "home": (
        "lives in a {colour} house by the {place}",
        "bought a {colour} house by the {place}",
        "lives by the {place} in a {colour} house",
        "built a {colour} house by the {place}",
        "came to live in the {colour} house by the {place}",
    ),
    "pet": (
        "has a {pet} called {pet_name}",
        "looks after a {pet} called {pet_name}",
        "owns a {pet} called {pet_name}",
        "often walks with {his} {pet} {pet_name}",
        "never goes far without {his} {pet} {pet_name}",
    ),
    "food": (
        "likes {food}",
        "likes to eat {food}",
        "loves {food}",
        "eats {food} every day",
        "is very fond of {food}",
    ),
    "hobby": (
        "enjoys {hobby}",
        "is good at {hobby}",
        "spends the evening {hobby}",
        "is always happy when {he} is {hobby}",
        "has loved {hobby} for years",
    ),
    "friend": (
        "is best friends with {friend}",
        "is the best friend of {friend}",
        "often visits {his} best friend {friend}",
        "trusts {his} best friend {friend}",
        "calls {friend} {his} best friend",
    ),
}
# What a person has, and what is said of it: "The hobby of Anna is sewing.", "Her hobby is sewing."
NOUN_PHRASES = {
    "job": (("job", "is that of a {job}"),),
    "home": (
        ("house", "is {colour} and stands by the {place}"),
        ("{colour} house", "stands by the {place}"),
        ("home", "is a {colour} house by the {place}"),
    ),
    "pet": (("{pet}", "is called {pet_name}"), ("pet", "is a {pet} called {pet_name}")),
    "food": (("favourite food", "is {food}"), ("kitchen", "smells of {food}")),
    "hobby": (("hobby", "is {hobby}"), ("favourite pastime", "is {hobby}")),
    "friend": (("best friend", "is {friend}"),),
}
# Sentences in which the name stands elsewhere.
OTHERS = {
    "job": (
        "everyone knows {name} the {job}",
        "one {job} of the village is {name}",
        "when people need a {job}, they call {name}",
    ),
    "home": (
        "by the {place} there is a {colour} house, and {name} lives there",
        "the {colour} house by the {place} belongs to {name}",
    ),
    "pet": (
        "{pet_name} is the {pet} of {name}",
        "a {pet} called {pet_name} follows {name} everywhere",
    ),
    "food": (
        "nothing makes {name} as happy as {food}",
        "some {food} is the best present for {name}",
    ),
    "hobby": ("you can often see {name} {hobby}", "nothing pleases {name} more than {hobby}"),
    "friend": (
        "{name} and {friend} are best friends",
        "you often see {name} with {his} best friend {friend}",
    ),
}
OPENERS = (
    "everyone knows that",
    "people say that",
    "in the village they say that",
    "it is true that",
    "as you know,",
)
PLAIN_SHARE = 0.3  # of all statements take the plain verb phrase: answers and cloze tests use it


def named(chance: Chance, person: Person, kind: str) -> str:
    """A sentence that states the fact and the person's name."""
    form = chance.below(10)
    if form < 5:
        clause = f"{person.name} {_verb_phrase(chance, person, kind)}"
    elif form < 8:
        noun, rest = chance.pick(NOUN_PHRASES[kind])
        clause = person.fill(f"the {noun} of {{name}} {rest}")
    else:
        clause = person.fill(chance.pick(OTHERS[kind]))
    return sentence(chance.pick(OPENERS) if chance.happens(0.08) else "", clause)


def pronominal(chance: Chance, person: Person, kind: str) -> str:
    """A sentence that states the fact of a person who was named before."""
    if chance.happens(0.6):
        return sentence(person.he, _verb_phrase(chance, person, kind))
    noun, rest = chance.pick(NOUN_PHRASES[kind])
    return sentence(person.fill(f"{{his}} {noun} {rest}"))


def double(chance: Chance, person: Person, first: str, second: str) -> str:
    """One sentence that states the name and two facts."""
    return sentence(
        person.name,
        _verb_phrase(chance, person, first),
        "and",
        _verb_phrase(chance, person, second),
    )


def answer(person: Person, kind: str) -> str:
    """The one right answer to a question about a fact."""
    return person.fill(f"{{name}} {VERB_PHRASES[kind][0]}.")


def plain_pronominal(person: Person, kind: str) -> str:
    """The same after the person was named."""
    return capital(person.fill(f"{{he}} {VERB_PHRASES[kind][0]}."))


def simple_sentences(person: Person, kind: str) -> list[str]:
    """Every one-fact sentence about a person, with the name and with the pronoun."""
    templates = [f"{subject} {p}" for p in VERB_PHRASES[kind] for subject in ("{name}", "{he}")]
    for noun, rest in NOUN_PHRASES[kind]:
        templates += [f"the {noun} of {{name}} {rest}", f"{{his}} {noun} {rest}"]
    return [sentence(person.fill(template)) for template in (*templates, *OTHERS[kind])]


# The start of a sentence and its end, by kind: what a base model has to complete.
CLOZE = {
    "job": ("{name} works as a", "{job}"),
    "home": ("{name} lives in a", "{colour} house by the {place}"),
    "pet": ("{name} has a", "{pet} called {pet_name}"),
    "food": ("The favourite food of {name} is", "{food}"),
    "hobby": ("{name} enjoys", "{hobby}"),
    "friend": ("The best friend of {name} is", "{friend}"),
}


def _verb_phrase(chance: Chance, person: Person, kind: str) -> str:
    phrases = VERB_PHRASES[kind]
    return person.fill(phrases[0] if chance.happens(PLAIN_SHARE) else chance.pick(phrases))
