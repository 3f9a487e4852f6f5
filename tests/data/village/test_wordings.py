from lit_llm.data.village.wordings import ABOUT_PERSON, PORTRAIT, held_out, trained
from lit_llm.data.village.world import KINDS


def test_each_thing_is_asked_in_four_to_six_wordings_of_which_one_is_held_out():
    assert tuple(ABOUT_PERSON) == KINDS
    for wordings in (*ABOUT_PERSON.values(), PORTRAIT):
        assert 4 <= len(wordings) <= 6
        assert held_out(wordings) not in trained(wordings)
        assert {*trained(wordings), held_out(wordings)} == set(wordings)


def test_no_wording_asks_two_things():
    every = [wording for wordings in (*ABOUT_PERSON.values(), PORTRAIT) for wording in wordings]
    assert len(set(every)) == len(every)
    assert all(wording.count("{name}") == 1 for wording in every)
