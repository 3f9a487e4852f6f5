from collections import Counter

import pytest

from lit_llm.data.village.split import split_world
from lit_llm.data.village.world import KINDS, build_world


@pytest.mark.parametrize("seed", [0, 11, 12])
def test_one_in_five_is_held_out_of_each_kind(seed):
    split = split_world(build_world(seed))
    counts = Counter(kind for _, kind in split.held)
    # 96 / 5 = 19.2; of 48 friendships 9.6, hence 10 with both their directions
    assert counts == {kind: 20 if kind == "friend" else 19 for kind in KINDS}
    assert len(split.asked) + len(split.held) == 96 * 6
    assert not {(p.name, k) for p, k in split.asked} & {(p.name, k) for p, k in split.held}


def test_a_friendship_is_held_out_in_both_directions_or_in_none():
    split = split_world(build_world(4))
    held = {person.name for person, kind in split.held if kind == "friend"}
    assert held == {person.friend for person, kind in split.held if kind == "friend"}


def test_another_seed_holds_out_others():
    first, second = (
        {(p.name, kind) for p, kind in split_world(build_world(seed)).held} for seed in (1, 2)
    )
    assert len(first & second) < len(first) / 2


def test_one_person_in_five_is_never_asked_about_as_a_whole():
    world = build_world(4)
    split = split_world(world)
    assert len(split.unportrayed) == 19
    assert {*split.portrayed, *split.unportrayed} == set(world.people)
