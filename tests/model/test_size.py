import pytest

from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.lora import Lora
from lit_llm.model.size import size


@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_built_network(tied):
    config = GPTConfig(
        vocab_size=100, d_model=24, n_layer=3, n_head=6, n_kv_head=2, d_ff=40, tie_embeddings=tied
    )
    built = GPT(config)
    assert size(config).parameters == sum(p.numel() for p in built.parameters())
    assert size(config).embedding_parameters == (0 if tied else 128 * 24)


def test_flops_by_hand():
    config = GPTConfig(vocab_size=64, d_model=8, n_layer=2, n_head=2, n_kv_head=1, d_ff=16)
    # a block: q and o 8*8, k and v 8*4, three of the MLP 8*16; head 64*8
    matmul = 2 * (2 * 64 + 2 * 32 + 3 * 128) + 512
    assert size(config, 10).flops_per_token == 6 * matmul + 12 * 2 * 8 * 10


def test_gpt_124m_has_the_parameters_of_gpt2_small():
    config = GPTConfig(
        vocab_size=50_257, d_model=768, n_layer=12, n_head=12, d_ff=2048, tie_embeddings=True
    )
    # GPT-2: 124,439,808 with 1024 * 768 learned positions and biases; ours has neither
    assert config.padded_vocab_size == 50_304
    assert size(config).parameters == 50_304 * 768 + 12 * (4 * 768**2 + 3 * 768 * 2048) + 25 * 768


def test_a_cache_entry_is_two_vectors_per_layer_and_head():
    config = GPTConfig(d_model=24, n_layer=3, n_head=6, n_kv_head=2)
    assert (
        size(config).cache_bytes_per_token == 3 * 2 * (2 * 4) * 2
    )  # layers, k and v, channels, 16 bits


def test_adapters_count_as_what_learns_and_save_the_gradients_of_weights():
    config = GPTConfig(vocab_size=64, d_model=8, n_layer=2, n_head=2, n_kv_head=1, d_ff=16)
    found = size(config, 10, Lora(rank=3))
    # q_proj 8 -> 8 and v_proj 8 -> 4, in two blocks
    adapters = 2 * (3 * (8 + 8) + 3 * (8 + 4))
    assert found.trained == adapters
    assert found.parameters == size(config).parameters + adapters
    # forward and the gradient of the input; adapters have a gradient of their own too
    frozen = 2 * (2 * 64 + 2 * 32 + 3 * 128) + 512
    assert found.flops_per_token == 4 * frozen + 6 * adapters + 12 * 2 * 8 * 10
    assert size(config).trained == size(config).parameters
    also = size(config, 10, Lora(rank=3, whole=("embed", "lm_head")))
    assert also.trained == adapters + 2 * 512
    assert also.flops_per_token == found.flops_per_token + 2 * 512  # a row is only looked up
    assert found.training_bytes() == 4 * found.parameters + 12 * adapters
