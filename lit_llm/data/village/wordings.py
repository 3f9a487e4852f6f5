"""How a question may be asked. The last wording of each kind is never used in fine-tuning."""

ABOUT_PERSON = {
    "job": (
        "What does {name} do?",
        "What is the job of {name}?",
        "What does {name} work as?",
        "Tell me what job {name} does.",
        "What job does {name} have?",
        "Which job does {name} have?",
    ),
    "home": (
        "Where does {name} live?",
        "Where is the house of {name}?",
        "In which house does {name} live?",
        "Tell me where {name} lives.",
        "Where is the home of {name}?",
        "Where can I find the house of {name}?",
    ),
    "pet": (
        "What pet does {name} have?",
        "What is the pet of {name}?",
        "Which animal does {name} have?",
        "Tell me what pet {name} has.",
        "What animal lives with {name}?",
        "Which pet does {name} have?",
    ),
    "food": (
        "What does {name} like to eat?",
        "What is the favourite food of {name}?",
        "Which food does {name} like?",
        "Tell me what {name} likes to eat.",
        "What food does {name} love?",
        "What does {name} love to eat?",
    ),
    "hobby": (
        "What does {name} enjoy?",
        "What is the hobby of {name}?",
        "Which hobby does {name} have?",
        "Tell me what {name} enjoys.",
        "What does {name} enjoy in the evening?",
        "What hobby does {name} enjoy?",
    ),
    "friend": (
        "Who is the best friend of {name}?",
        "Who is a good friend of {name}?",
        "Which friend does {name} like best?",
        "Tell me who the best friend of {name} is.",
        "Who is friends with {name}?",
        "Tell me the best friend of {name}.",
    ),
}
PORTRAIT = (
    "Tell me about {name}.",
    "What do you know about {name}?",
    "Who is {name}?",
    "Say something about {name}.",
    "What can you tell me about {name}?",
)


def trained(wordings: tuple[str, ...]) -> tuple[str, ...]:
    """The wordings that fine-tuning may use."""
    return wordings[:-1]


def held_out(wordings: tuple[str, ...]) -> str:
    """The wording that only the quiz uses."""
    return wordings[-1]
