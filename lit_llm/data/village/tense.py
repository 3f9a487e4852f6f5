"""Sentences in the present and in the past, to learn a rule from and to test it on new ones."""

from dataclasses import dataclass

from lit_llm.data.village.chance import Chance, digest
from lit_llm.data.village.grammar import article, sentence

VERBS = dict(
    pair.split("=")
    for pair in [
        "takes=took",
        "finds=found",
        "sees=saw",
        "loses=lost",
        "makes=made",
        "buys=bought",
        "hides=hid",
        "wants=wanted",
        "holds=held",
        "brings=brought",
        "sells=sold",
        "draws=drew",
        "breaks=broke",
        "keeps=kept",
        "needs=needed",
        "carries=carried",
    ]
)
THINGS = (
    "ball kite book hat cup key lamp drum doll coin map bell rope box flute basket ring spoon "
    "clock candle umbrella apron"
).split()
COLOURS = ["red", "blue", "green", "yellow", "white", "black", "pink", "brown"]
SCENES = ["forest", "garden", "market", "park", "school", "shop", "barn", "library"]
FORMS = 4
HELD_SHARE = 5  # one in five (name, thing) pairs is kept for the quiz
WORDINGS = (
    "Put this in the past tense: {sentence}",
    "Say this in the past tense: {sentence}",
    "What is the past tense of this? {sentence}",
    "Tell me this in the past tense: {sentence}",
)


@dataclass(frozen=True)
class Change:
    """One sentence in both tenses."""

    present: str
    past: str


def is_held_out(name: str, thing: str) -> bool:
    """Whether sentences that put this name and this thing together are kept for the quiz."""
    return digest("tense", name, thing) % HELD_SHARE == 0


def change(chance: Chance, names: list[str], *, quiz: bool) -> Change:
    """Draw a sentence about one of `names`, for training or for the quiz."""
    while True:
        name, (thing, other) = chance.pick(names), chance.sample(THINGS, 2)
        held = is_held_out(name, thing), is_held_out(name, other)
        if held == (quiz, quiz):
            break
    form, colour, scene = chance.below(FORMS), chance.pick(COLOURS), chance.pick(SCENES)
    verbs = chance.sample(list(VERBS), 2)

    def write(first: str, second: str) -> str:
        return (
            sentence(name, first, article(colour), thing),
            sentence(name, first, "the", colour, thing),
            sentence("in the", scene, name, first, article(thing)),
            sentence(name, first, "the", thing, "and", second, article(other)),
        )[form]

    return Change(write(*verbs), write(*(VERBS[verb] for verb in verbs)))
