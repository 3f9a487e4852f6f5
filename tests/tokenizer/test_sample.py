import pytest

from lit_llm.tokenizer.sample import _priority, sample


def test_what_fits_is_kept_whole_and_in_order():
    items = [f"item {i}" for i in range(37)]
    assert sample(iter(items), max_chars=sum(map(len, items))) == items


def test_of_more_than_fits_a_part_is_kept_in_order_and_the_same_again():
    items = [f"{i:05}" for i in range(2000)]
    kept = sample(iter(items), max_chars=5 * 300)
    assert len(kept) == 300
    assert kept == sorted(kept)
    assert kept == sample(iter(items), max_chars=5 * 300)


def test_every_part_of_the_corpus_is_drawn_from_alike():
    kept = sample((f"{i:05}" for i in range(10_000)), max_chars=5 * 2000)
    tenths = [sum(i * 1000 <= int(item) < (i + 1) * 1000 for item in kept) for i in range(10)]
    # 200 expected in each, with a standard deviation of 12.6
    assert tenths == pytest.approx([200] * 10, abs=50)


def test_the_sample_is_the_items_of_lowest_priority_that_fit_together():
    """So that a short item late in the corpus has no better chance than a long one."""
    items = [f"{i:0{i * 37 % 90 + 5}}" for i in range(3000)]
    for max_chars in 500, 4321, 60_000:
        expected, chars = [], 0
        for index in sorted(range(len(items)), key=_priority):
            chars += len(items[index])
            if chars > max_chars:
                break
            expected.append(index)
        assert [int(item) for item in sample(iter(items), max_chars)] == sorted(expected)
