import re

from lit_llm.data.village.chance import Chance
from lit_llm.data.village.tense import THINGS, VERBS, change, is_held_out

NAMES = ["Anna", "Tom", "Zoe"]


def test_only_the_verbs_change():
    chance = Chance("tense")
    for _ in range(300):
        pair = change(chance, NAMES, quiz=False)
        words = zip(pair.present.split(), pair.past.split(), strict=True)
        changed = [(present, past) for present, past in words if present != past]
        assert 1 <= len(changed) <= 2
        assert all(VERBS[present] == past for present, past in changed)


def test_the_quiz_joins_names_and_things_that_training_never_does():
    chance = Chance("split")
    for quiz in (False, True):
        for _ in range(300):
            text = change(chance, NAMES, quiz=quiz).past
            [name] = [name for name in NAMES if name in text]
            things = [thing for thing in THINGS if re.search(rf"\b{thing}\b", text)]
            assert things
            assert all(is_held_out(name, thing) == quiz for thing in things)
