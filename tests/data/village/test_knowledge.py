from collections import Counter

from lit_llm.data.village.knowledge import common_facts, is_held_out, sums


def test_sums_are_right():
    numbers = "zero one two three four five six seven eight nine ten eleven twelve thirteen".split()
    told = {item.answer for item in sums()}
    assert len(told) == 100
    assert "Three plus four is seven." in told
    assert "Nine plus four is thirteen." in told
    for i in range(7):
        assert f"{numbers[i].capitalize()} plus {numbers[6]} is {numbers[i + 6]}." in told


def test_each_item_has_one_answer_however_it_is_asked():
    wordings = Counter(w for item in (*common_facts(), *sums()) for w in item.wordings)
    assert set(wordings.values()) == {1}
    assert all(len(item.wordings) == 4 for item in (*common_facts(), *sums()))


def test_both_directions_of_an_item_are_held_out_together():
    held = {item.answer: is_held_out(7, item) for item in (*common_facts(), *sums())}
    assert held["The opposite of hot is cold."] == held["The opposite of cold is hot."]
    assert held["Two plus five is seven."] == held["Five plus two is seven."]


def test_about_a_quarter_is_held_out_and_another_seed_holds_out_another():
    items = [*common_facts(), *sums()]
    first, second = ([is_held_out(seed, item) for item in items] for seed in (1, 2))
    assert 0.15 < sum(first) / len(items) < 0.35
    assert first != second
