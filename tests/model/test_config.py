import dataclasses

import pytest

from lit_llm.model.config import GPTConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 128, "n_head": 5}, "d_model=128 does not split into n_head=5 heads"),
        ({"n_head": 4, "n_kv_head": 3}, "make n_kv_head a divisor of 4"),
        ({"n_kv_head": 0}, "n_kv_head=0"),
        ({"d_model": 28, "n_head": 4}, "head_dim=7 is odd"),
        ({"head_dim": 9}, "head_dim=9 is odd"),
        ({"head_dim": 0}, "head_dim=0 is no size"),
        ({"d_ff": -3}, "d_ff=-3 is no size"),
        ({"n_layer": 0}, "n_layer=0 is no size"),
        ({"vocab_size": 0}, "vocab_size=0 is no size"),
        ({"dropout": 1.0}, "dropout=1.0 is no share"),
        ({"sliding_window": 0}, "sliding_window=0 is no size"),
        ({"full_layers": 1}, "full_layers=1 counts layers beside those with a sliding_window"),
        ({"sliding_window": 8, "full_layers": -1}, "give 0 or more, and a window"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**settings)


def test_sizes_left_open_follow_from_the_others():
    config = GPTConfig(d_model=120, n_head=6)
    assert config.kv_heads == 6
    assert config.channels_per_head == 20
    assert config.ff_dim == 320  # 8/3 * 120 = 320, a multiple of 64
    assert GPTConfig(d_model=768, n_head=12).ff_dim == 2048
    assert GPTConfig(d_model=128).ff_dim == 384  # 341.3 rounded up to a multiple of 64


def test_sizes_given_are_taken():
    config = GPTConfig(d_model=30, n_head=6, n_kv_head=2, head_dim=14, d_ff=37)
    assert (config.kv_heads, config.channels_per_head, config.ff_dim) == (2, 14, 37)


def test_a_head_dim_of_its_own_frees_d_model_from_n_head():
    assert GPTConfig(d_model=31, n_head=4, head_dim=8).channels_per_head == 8


@pytest.mark.parametrize(
    ("vocab_size", "pad_vocab_to", "rows"), [(50257, 64, 50304), (128, 64, 128), (129, 1, 129)]
)
def test_embedding_rows_are_rounded_up(vocab_size, pad_vocab_to, rows):
    config = GPTConfig(vocab_size=vocab_size, pad_vocab_to=pad_vocab_to)
    assert config.padded_vocab_size == rows


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig().n_layer = 7  # type: ignore[misc]
