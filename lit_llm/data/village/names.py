"""What people are called: those who live in the village, and those who do not exist.

A name that nobody in the village bears is either a *training* name, used to teach the answer
"I don't know.", or a *quiz* name, used to test it; a name is never both.
"""

from lit_llm.data.village.chance import Chance, digest

HE = (
    "Adam Alan Albert Andy Ben Bernard Bob Boris Bruno Carl Casper Chris Cole Conrad Dan Daniel "
    "David Dean Denis Eli Eric Ernest Ethan Evan Felix Finn Frank Fred Gabriel Gary George Gilbert "
    "Glen Gordon Gus Hans Harry Henry Herman Hugo Ian Igor Isaac Ivan Jacob James Jasper Jim Joe "
    "John Jonas Joseph Julian Karl Keith Kevin Kurt Lars Leo Leon Lewis Liam Louis Luke Marco "
    "Martin Matt Max Michael Milo Neil Nick Nigel Noah Norman Oliver Omar Oscar Otis Owen Pablo "
    "Paul Pedro Pete Phil Quentin Ralph Ray Remy Richard Robert Roger Roland Ross Roy Rudolf Sam "
    "Samuel Scott Sean Simon Stan Steve Ted Theo Thomas Toby Tom Victor Vincent Walter Wes Zack"
).split()
SHE = (
    "Abby Ada Agnes Alice Amanda Amy Anna April Astrid Audrey Barbara Bea Bess Betty Brenda Carol "
    "Cecily Celia Chloe Clara Cora Dana Debra Diana Donna Dora Doris Edith Edna Eleanor Ella Elsa "
    "Emily Emma Esther Eva Fay Fiona Flora Freya Gemma Gina Gloria Greta Gwen Hannah Hazel Helen "
    "Hilda Ida Ines Ingrid Irene Isabel Jane Janet Jill Joan Judith Julia June Karen Kate Kim "
    "Laura Lena Lily Linda Lisa Lucy Lydia Mabel Margot Maria Martha Mary Maud Meg Mia Mildred "
    "Molly Monica Nancy Naomi Nina Nora Olga Pam Paula Petra Phoebe Polly Rachel Rhoda Rita Rosa "
    "Ruth Sally Sara Selma Sonia Stella Sue Susan Sylvia Tess Tina Ursula Vera Viola Wendy Wilma "
    "Zoe"
).split()
POOL = {**dict.fromkeys(HE, "he"), **dict.fromkeys(SHE, "she")}
"""Every name that a villager can have, with the pronoun."""
ORDINARY = [*HE, *SHE]

ONSETS = "B Bl Br C Ch D Dr F Fl G Gr H J K Kl L M N P Pr Qu R S Sh Sk T Th Tr V W Y Z".split()
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
MIDDLES = "b bb d dr ff g l ld ll lm m mb n nd nn r rd rv s sk ss st t v x z".split()
ENDINGS = "a an ar el en er ia ic il in is o on or us y".split()
QUIZ_SHARE = 4  # one in four names that nobody bears is kept for the quiz


def resident_names(seed: int, people: int) -> list[str]:
    """The names of the village of `seed`, all different."""
    return Chance(seed, "residents").sample(ORDINARY, people)


def is_quiz_name(name: str) -> bool:
    """Whether a name that nobody bears belongs to the quiz; the same for every seed."""
    return digest("quiz name", name) % QUIZ_SHARE == 0


def stranger(chance: Chance, residents: frozenset[str], *, quiz: bool) -> str:
    """A name that nobody in the village has: an ordinary one or an invented one."""
    while True:
        ordinary = chance.happens(0.5)
        name = chance.pick(ORDINARY) if ordinary else invented_name(chance)
        if name not in residents and is_quiz_name(name) == quiz and (ordinary or name not in POOL):
            return name


def invented_name(chance: Chance) -> str:
    """A name such as Brannel or Thoosko: about 100,000 are possible."""
    return "".join(chance.pick(part) for part in (ONSETS, VOWELS, MIDDLES, ENDINGS))
