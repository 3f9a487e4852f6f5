import random

import pytest

from lit_llm.generation.stop import TextStream, find_stop, unfinished_stop


def run(pieces: list[bytes], stop: list[str]) -> tuple[list[str], bool]:
    """Released text per token, the rest last; and whether a stop string was met."""
    stream = TextStream(pieces.__getitem__, stop)
    released = []
    for id in range(len(pieces)):
        released.append(stream.push(id))
        if stream.stopped:
            break
    else:
        released.append(stream.finish())
    assert stream.text == "".join(released)
    return released, stream.stopped


def test_text_without_stop_strings_comes_at_once():
    assert run([b"ab", b" c", b""], []) == (["ab", " c", "", ""], False)


def test_a_character_is_released_when_its_last_byte_is_there():
    snowman = "☃".encode()
    assert len(snowman) == 3
    assert run([b"a" + snowman[:1], snowman[1:2], snowman[2:] + b"b"], []) == (
        ["a", "", "☃b", ""],
        False,
    )


def test_bytes_that_are_no_character_become_the_replacement_character():
    assert run([b"\xffa", b"\xe2\x98"], []) == (["�a", "", "�"], False)


def test_a_stop_string_is_cut_out_across_token_borders():
    assert run([b"Hi\nUs", b"e", b"r: x", b"y"], ["\nUser:"]) == (["Hi", "", ""], True)


def test_what_only_looked_like_a_stop_string_is_released():
    assert run([b"a<e", b"n", b"t>"], ["<end>"]) == (["a", "", "<ent>", ""], False)


def test_an_unfinished_stop_string_is_released_at_the_end():
    assert run([b"a<en"], ["<end>"]) == (["a", "<en"], False)


def test_the_stop_string_that_is_complete_first_counts():
    assert find_stop("xabcab", ["abcab", "bc", "b"]) == 2  # "b" ends first
    assert find_stop("xabc", ["bc", "abc"]) == 1  # both end there: the longer one
    assert find_stop("xyz", ["abc"]) is None


def test_the_longest_possible_beginning_is_held_back():
    assert unfinished_stop("..aab", ["aabc", "bd"]) == 3
    assert unfinished_stop("..ab", ["bd", "xx"]) == 1
    assert unfinished_stop("...", ["a"]) == 0


@pytest.mark.parametrize("seed", range(200))
def test_any_cut_into_tokens_gives_the_same_text_as_the_slow_way(seed):
    """The slow way: add one character at a time and cut when a stop string ends the text."""
    random_ = random.Random(seed)
    text = "".join(random_.choices("ab☃é", k=30))
    stop = ["".join(random_.choices("ab☃é", k=random_.randint(2, 4))) for _ in range(3)]
    expected = text
    for end in range(len(text) + 1):
        ends_here = [len(s) for s in stop if text[:end].endswith(s)]
        if ends_here:
            expected = text[: end - max(ends_here)]
            break

    data = text.encode()
    borders = sorted(random_.sample(range(1, len(data)), 12))
    pieces = [data[a:b] for a, b in zip([0, *borders], [*borders, len(data)], strict=True)]
    released, stopped = run(pieces, stop)
    assert "".join(released) == expected
    assert stopped == (expected != text)
