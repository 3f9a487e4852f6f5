import numpy as np

from lit_llm.data.scan import DOCUMENT
from lit_llm.data.split import cut_tail, held_out, scramble


def documents(n, seed=0):
    made = np.zeros(n, DOCUMENT)
    made["low"] = np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)
    return made


def test_about_the_asked_share_is_held_out():
    share = held_out(documents(100_000), 0.1, 3).mean()
    assert abs(share - 0.1) < 0.004  # 4 standard deviations of sqrt(0.1 * 0.9 / 100,000)


def test_a_document_stays_on_its_side_when_others_come():
    some, more = documents(500), np.concatenate([documents(700, seed=1), documents(500)])
    assert (held_out(more, 0.2, 0)[700:] == held_out(some, 0.2, 0)).all()


def test_a_larger_fraction_keeps_what_was_held_out_and_zero_holds_out_nothing():
    some = documents(1000)
    assert (held_out(some, 0.1, 0) <= held_out(some, 0.3, 0)).all()
    assert not held_out(some, 0.0, 0).any()


def test_another_seed_holds_out_others():
    some = documents(1000)
    assert 0.05 < (held_out(some, 0.5, 0) == held_out(some, 0.5, 1)).mean() < 0.95


def test_scramble_equals_splitmix64_in_plain_integers():
    def slow(value, key):
        m = 2**64 - 1
        z = (value + (key + 1) * 0x9E3779B97F4A7C15) & m
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & m
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & m
        return z ^ (z >> 31)

    assert slow(0, 0) == 0xE220A8397B1DCDAF  # first output of the reference code with seed 0
    values = [0, 1, 2**63, 2**64 - 1, 12345678901234567890]
    got = scramble(np.array(values, np.uint64), 7)
    assert got.tolist() == [slow(value, 7) for value in values]


def test_the_tail_is_cut_as_nanogpt_cuts():
    text = "".join(chr(97 + i % 26) for i in range(1_115_394))
    head, tail = cut_tail(text, 0.1)
    assert len(head) == int(1_115_394 * 0.9) == 1_003_854
    assert head + tail == text


def test_an_end_too_short_or_blank_stays_in_training():
    assert cut_tail("abc", 0.1) == ("ab", "c")
    assert cut_tail("abc", 0.0) == ("abc", "")
    assert cut_tail("a", 0.1) == ("a", "")
    assert cut_tail("abcdefg\n\n", 0.2) == ("abcdefg\n\n", "")
