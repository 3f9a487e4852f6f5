import pytest

from lit_llm.generation.row import Row
from lit_llm.generation.sampling import Sampling


def row(prompt_tokens: int = 3, max_new_tokens: int = 4, stop: tuple[str, ...] = ()) -> Row:
    """Token 7 ends it, token n spells the n-th letter, and the context has 9 places."""
    sampling = Sampling(max_new_tokens=max_new_tokens, stop=list(stop))
    return Row(0, [5] * prompt_tokens, 0, sampling, {7}, lambda id: b"abcdefgh"[id : id + 1], 9)


def push(row: Row, ids: list[int]) -> list[str]:
    return [row.push(id, -0.5) for id in ids]


def test_a_stop_token_is_not_part_of_the_answer():
    one = row()
    assert push(one, [0, 1, 7]) == ["a", "b", ""]
    answer = one.result()
    assert (answer.ids, answer.text, answer.finish_reason) == ([0, 1], "ab", "stop_token")
    assert answer.logprobs == [-0.5, -0.5]


def test_a_stop_string_is_cut_from_the_text_and_stays_in_the_ids():
    one = row(stop=("bc",))
    assert push(one, [0, 1, 2]) == ["a", "", ""]
    answer = one.result()
    assert (answer.ids, answer.text, answer.finish_reason) == ([0, 1, 2], "a", "stop_string")


@pytest.mark.parametrize(
    ("prompt_tokens", "max_new_tokens", "length", "reason"),
    [(3, 4, 4, "length"), (3, 99, 6, "context"), (8, 4, 1, "context"), (5, 4, 4, "length")],
)
def test_an_answer_ends_at_its_limit_or_the_contexts(prompt_tokens, max_new_tokens, length, reason):
    one = row(prompt_tokens, max_new_tokens)
    push(one, [0] * (length - 1))
    assert one.finish_reason is None
    assert one.length == prompt_tokens + length - 1
    push(one, [0])
    assert one.result().finish_reason == reason


def test_the_end_releases_what_was_held_back():
    assert push(row(max_new_tokens=2, stop=("abc",)), [0, 1]) == ["", "ab"]
    assert push(row(stop=("abc",)), [0, 1, 7]) == ["", "", "ab"]
