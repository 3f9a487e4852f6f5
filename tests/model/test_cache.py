import pytest
import torch

from lit_llm.model.cache import KVCache
from lit_llm.model.config import GPTConfig

B, K, S, E, LAYERS = 4, 3, 7, 10, 2
CONFIG = GPTConfig(n_layer=LAYERS, d_model=33, n_head=6, n_kv_head=K, head_dim=E, max_seq_len=S + 4)


def test_every_layer_has_room_for_every_sequence():
    cache = KVCache(CONFIG, B, S)
    assert len(cache.layers) == LAYERS
    assert all(x.k_BKSE.shape == x.v_BKSE.shape == (B, K, S, E) for x in cache.layers)
    assert cache.slots == S


def test_keys_and_values_go_to_the_slots_of_their_positions():
    layer = KVCache(CONFIG, 2, S).layers[0]
    k, v = torch.randn(2, K, 2, E), torch.randn(2, K, 2, E)
    layer.write(k, v, torch.tensor([[3, 4], [0, 6]]))
    assert torch.equal(layer.k_BKSE[0, :, 3:5], k[0])
    assert torch.equal(layer.v_BKSE[0, :, 3:5], v[0])
    assert torch.equal(layer.k_BKSE[1, :, [0, 6]], k[1])
    assert torch.equal(layer.v_BKSE[1, :, [0, 6]], v[1])
    assert layer.k_BKSE[0, :, [0, 1, 2, 5, 6]].abs().max() == 0  # other slots are as before


def test_the_first_tokens_take_the_first_slots():
    layer = KVCache(CONFIG, 2, S, dtype=torch.bfloat16).layers[0]
    k, v = torch.randn(2, K, 4, E), torch.randn(2, K, 4, E)
    layer.begin(k, v)
    assert torch.equal(layer.k_BKSE[:, :, :4], k.bfloat16())
    assert torch.equal(layer.v_BKSE[:, :, :4], v.bfloat16())
    assert layer.k_BKSE[:, :, 4:].abs().max() == 0


def test_writing_again_replaces_what_was_there():
    layer = KVCache(CONFIG, 1, S).layers[0]
    for _ in range(2):
        k = torch.randn(1, K, 1, E)
        layer.write(k, k, torch.tensor([[5]]))
    assert torch.equal(layer.k_BKSE[:, :, 5:6], k)


def test_what_is_written_takes_the_dtype_of_the_cache():
    layer = KVCache(CONFIG, 1, S, dtype=torch.bfloat16).layers[0]
    layer.write(torch.ones(1, K, 1, E), torch.ones(1, K, 1, E), torch.tensor([[2]]))
    assert layer.k_BKSE.dtype == layer.v_BKSE.dtype == torch.bfloat16
    assert layer.k_BKSE.sum() == K * E


def test_keep_drops_the_other_sequences_in_every_layer():
    cache = KVCache(CONFIG, B, S)
    for number, layer in enumerate(cache.layers):
        layer.k_BKSE += torch.arange(B)[:, None, None, None] + 10 * number
        layer.v_BKSE -= torch.arange(B)[:, None, None, None] + 10 * number
    cache.keep(torch.tensor([1, 3]))
    assert [layer.k_BKSE[:, 0, 0, 0].tolist() for layer in cache.layers] == [[1, 3], [11, 13]]
    assert [layer.v_BKSE[:, 0, 0, 0].tolist() for layer in cache.layers] == [[-1, -3], [-11, -13]]


def test_more_slots_than_positions_are_refused():
    with pytest.raises(ValueError, match="a cache of 12 slots is longer than max_seq_len=11"):
        KVCache(CONFIG, B, S + 5)
