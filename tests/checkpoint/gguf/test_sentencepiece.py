import io

import pytest
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as format_

from lit_llm.checkpoint.gguf.sentencepiece import describe, read_model
from lit_llm.tokenizer import SentencePiece
from tests.checkpoint.gguf import made


def train(**settings) -> bytes:
    model = io.BytesIO()
    lines = [line for text in made.corpus() for line in text.splitlines()]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        minloglevel=2,
        **{"vocab_size": 500, "model_type": "bpe", "hard_vocab_limit": False, **settings},
    )
    return model.getvalue()


LOSSLESS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
WITH_BYTES = {**LOSSLESS, "byte_fallback": True}


def tokenizer(path, **settings) -> SentencePiece:
    path.write_bytes(train(**settings))
    return SentencePiece(str(path))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model_type": "unigram"},
        {**WITH_BYTES, "add_dummy_prefix": False, "user_defined_symbols": ["<b>", "▁▁"]},
        {**WITH_BYTES, "treat_whitespace_as_suffix": True, "control_symbols": ["<x>"]},
    ],
)
def test_a_model_reads_as_protobuf_reads_it(settings):
    content = train(**settings)
    theirs = format_.ModelProto.FromString(content)
    ours = read_model(content)
    kinds = format_.TrainerSpec.ModelType.Name
    assert [tuple(p) for p in ours.pieces] == [(p.piece, p.type, p.score) for p in theirs.pieces]
    assert ours.kind == kinds(theirs.trainer_spec.model_type).lower()
    assert ours.adds_space == theirs.normalizer_spec.add_dummy_prefix
    assert ours.normalizes == (settings.get("remove_extra_whitespaces", True))
    assert ours.spaces_are_pieces == (not theirs.trainer_spec.treat_whitespace_as_suffix)


def test_our_own_adds_no_space_and_knows_its_unknown_token(sentencepiece):
    described = describe(sentencepiece)
    assert described.model == "llama"
    assert described.metadata == {
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    assert described.mistakable == []
    by_type = {piece.type: piece.text for piece in reversed(described.pieces)}
    assert by_type[3] == "<pad>"  # control
    assert by_type[6] == "<0x00>"  # a byte


def test_user_defined_pieces_are_written_with_spaces(tmp_path):
    """llama.cpp looks for them before it writes spaces as U+2581."""
    settings = {**WITH_BYTES, "add_dummy_prefix": False, "user_defined_symbols": ["▁▁x"]}
    described = describe(tokenizer(tmp_path / "a", **settings))
    assert [piece.text for piece in described.pieces if piece.type == 4] == ["  x"]


def test_control_tokens_that_pieces_make_up_are_told(tmp_path):
    """Where pieces mix letters and signs: </s> out of "</s" and ">", but <s> out of none."""
    path = tmp_path / "a"
    path.write_bytes(train(**WITH_BYTES, vocab_size=400))
    model = format_.ModelProto.FromString(path.read_bytes())
    model.pieces[-1].piece = "</s"
    path.write_bytes(model.SerializeToString())
    assert describe(SentencePiece(str(path))).mistakable == ["</s>"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**WITH_BYTES, "model_type": "unigram"}, "model_type=unigram of the tokenizer"),
        ({**WITH_BYTES, "model_type": "word", "vocab_size": 600}, "model_type=word"),
        ({"byte_fallback": True}, "the tokenizer normalizes text"),
        (
            {"byte_fallback": True, "normalization_rule_name": "identity"},
            "remove_extra_whitespaces=false",
        ),
        ({**WITH_BYTES, "treat_whitespace_as_suffix": True}, "does not write a space as U[+]2581"),
        ({**WITH_BYTES, "user_defined_symbols": ["<b>"]}, "a text and has user-defined pieces"),
        (LOSSLESS, "has not all of the 256 bytes"),
    ],
)
def test_what_llama_cpp_would_encode_in_another_way_is_refused(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said) as refused:
        describe(tokenizer(tmp_path / "a", **settings))
    assert "\n" not in str(refused.value)
