import json

import pytest

from lit_llm.tokenizer import SentencePiece, report


@pytest.fixture(scope="module")
def tokenizer() -> SentencePiece:
    # Seven characters, six merges: ab, abc, then xy, xyz, and two with spaces.
    return SentencePiece(vocab_size=265 + 7 + 6).train(["abc abc abc", "xyz xyz"])


def test_counts_by_hand(tokenizer):
    result = report(tokenizer, ["abc", "", "é!"])
    assert [tokenizer.token_bytes(id) for id in tokenizer.encode("abc")] == [b"abc"]
    assert (result["bytes"], result["tokens"]) == (6, 4)  # é is two bytes
    assert result["bytes_per_token"] == 1.5


def test_unused_pieces_are_those_of_several_bytes_that_no_text_used(tokenizer):
    pieces = {tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)}
    longer = {piece.decode() for piece in pieces if len(piece) > 1}
    unused = report(tokenizer, ["abc"])["unused_pieces"]
    assert unused["count"] == len(longer) - 1
    assert set(unused["examples"]) == longer - {"abc"}


def test_no_text_at_all_has_no_ratio(tokenizer):
    result = report(tokenizer, [])
    assert result["bytes_per_token"] is None
    assert json.loads(json.dumps(result)) == result
