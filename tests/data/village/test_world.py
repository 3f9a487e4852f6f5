from collections import Counter

import pytest

from lit_llm.data.village.names import POOL
from lit_llm.data.village.world import FOODS, HOBBIES, JOBS, PETS, build_world


def test_the_same_seed_is_the_same_village_and_another_seed_another():
    assert build_world(3) == build_world(3)
    assert build_world(3) != build_world(4)


def test_best_friends_come_in_pairs():
    people = {person.name: person for person in build_world(3).people}
    assert len(people) == 96
    for name, person in people.items():
        assert person.friend != name
        assert people[person.friend].friend == name


@pytest.mark.parametrize(
    ("field", "values"), [("job", JOBS), ("pet", PETS), ("food", FOODS), ("hobby", HOBBIES)]
)
def test_no_value_is_a_better_guess_than_another(field, values):
    counts = Counter(getattr(person, field) for person in build_world(8).people)
    assert len(counts) == len(values)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_pronouns_follow_the_name():
    for person in build_world(0).people:
        assert person.he == POOL[person.name]
        assert person.his == {"he": "his", "she": "her"}[person.he]


@pytest.mark.parametrize("people", [95, 22, 1000])
def test_a_size_that_no_village_can_have_is_refused(people):
    with pytest.raises(ValueError, match=f"people={people}: .* even number"):
        build_world(0, people)
