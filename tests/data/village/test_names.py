import pytest

from lit_llm.data.village.chance import Chance
from lit_llm.data.village.names import HE, POOL, SHE, is_quiz_name, resident_names, stranger


def test_no_name_is_listed_twice():
    assert len(POOL) == len(HE) + len(SHE)


def test_residents_are_all_different_and_another_seed_has_others():
    first, second = resident_names(1, 96), resident_names(2, 96)
    assert len(set(first)) == 96
    assert set(first) != set(second)


@pytest.mark.parametrize("quiz", [False, True])
def test_strangers_do_not_live_here_and_training_and_quiz_share_none(quiz):
    residents = frozenset(resident_names(5, 96))
    chance = Chance("strangers")
    names = [stranger(chance, residents, quiz=quiz) for _ in range(500)]
    assert not residents & set(names)
    assert all(is_quiz_name(name) == quiz for name in names)
    ordinary = sum(name in POOL for name in names)
    assert 150 < ordinary < 350  # about half: strangers cannot be told by odd names alone
