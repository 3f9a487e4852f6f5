import pytest

from lit_llm.callbacks.units import clock, short, teraflops


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (18_240, "18.2k"), (4_096_000, "4.1M"), (1.5e9, "1.5B"), (2e12, "2T")],
)
def test_counts_have_three_digits_and_a_unit(number, text):
    assert short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (42.4, "0:42"), (119.6, "2:00"), (3_725, "1:02:05")]
)
def test_times_are_hours_minutes_seconds(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("flops", "text"), [(2.13e11, "0.21"), (7.1e13, "71"), (9.89e14, "989"), (2.25e15, "2,250")]
)
def test_a_peak_has_two_digits_or_is_a_whole_number(flops, text):
    assert teraflops(flops) == text
