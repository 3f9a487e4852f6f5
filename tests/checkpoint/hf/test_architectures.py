import pytest
import torch
import transformers

from lit_llm.checkpoint.hf.architectures import from_hf_config, to_hf_config
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.model.config import GPTConfig
from lit_llm.model.rope import RopeScaling
from tests.checkpoint.hf.published import FAMILIES, their_config

QWEN = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 10,
    "hidden_size": 8,
    "intermediate_size": 5,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
MISTRAL = {**QWEN, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
LLAMA = {**QWEN, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
WINDOWS = {"use_sliding_window": True, "sliding_window": 16}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_comes_back_as_it_was(family):
    theirs = their_config(family)
    config = from_hf_config(theirs.to_dict())
    described = to_hf_config(config, torch.float32)
    kind = described["architectures"][0].replace("ForCausalLM", "Config")
    back = getattr(transformers, kind)(**described)
    again = from_hf_config(back.to_dict())
    assert gpt_to_plain(again) | {"head_dim": 0} == gpt_to_plain(config) | {"head_dim": 0}
    assert again.channels_per_head == config.channels_per_head
    # Mistral without a window is Llama, where Llama takes its sizes.
    assert kind == f"{FAMILIES[family][0]}Config" or family == "Mistral, no window"
    named = ("hidden_size", "num_key_value_heads", "rope_parameters", "tie_word_embeddings")
    for key in (*named, "rms_norm_eps", "max_position_embeddings", "intermediate_size"):
        assert getattr(back, key) == getattr(theirs, key), key
    for key in ("layer_types", "sliding_window"):
        assert getattr(back, key, None) == getattr(theirs, key, None), key


def test_the_keys_of_older_versions_are_read_too():
    scaling = {
        "type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    config = from_hf_config({**LLAMA, "rope_theta": 5e5, "rope_scaling": scaling})
    assert config.rope_theta == 5e5
    assert config.rope_scaling == RopeScaling(factor=32.0, original_max_seq_len=16)


@pytest.mark.parametrize(
    ("content", "window", "full_layers"),
    [
        ({**QWEN, "sliding_window": 16}, None, 0),  # not used, says use_sliding_window
        ({**QWEN, **WINDOWS, "max_window_layers": 3}, 16, 3),
        ({**QWEN, **WINDOWS, "max_window_layers": 4}, None, 0),  # no layer is left for it
        ({**QWEN, **WINDOWS}, None, 0),  # 28 by default
        ({**MISTRAL, "sliding_window": 16}, 16, 0),
        ({**MISTRAL, "sliding_window": None}, None, 0),
        (MISTRAL, None, 0),  # 4096 by default, longer than the context
        ({**LLAMA, "sliding_window": 16}, None, 0),  # Llama has none, whatever is written there
    ],
)
def test_windows_are_those_that_transformers_takes(content, window, full_layers):
    config = from_hf_config(content)
    assert (config.sliding_window, config.full_layers) == (window, full_layers)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, r"architectures=\['GemmaForCausalLM'\] is not"),
        ({"architectures": None, "model_type": "mamba"}, "architectures|model_type='mamba'"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu' is not supported \(supported: 'silu'\)"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"mlp_bias": True}, "mlp_bias=True is not supported"),
        ({"quantization_config": {"bits": 4}}, r"quantization_config=\{'bits': 4\} is not"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling=.*yarn.* is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling=.* lacks factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "no partial_rotary_factor"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 is no size"),
        ({"hidden_size": "8"}, "hidden_size='8' is no size"),
        ({"num_key_value_heads": 3}, "contradicts itself: .*3"),
        ({"hidden_size": 9}, "contradicts itself: d_model=9"),
        ({"rms_norm_eps": -1}, "rms_norm_eps=-1 must be a number above 0"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types=.* is not supported"),
    ],
)
def test_what_is_not_supported_is_named_with_its_value(changed, said):
    with pytest.raises(ValueError, match=said) as refused:
        from_hf_config({**LLAMA, **changed})
    assert len(str(refused.value).splitlines()) == 1


def test_a_missing_size_is_named():
    with pytest.raises(ValueError, match=r"config\.json lacks intermediate_size"):
        from_hf_config({key: value for key, value in LLAMA.items() if key != "intermediate_size"})


def test_layers_in_another_order_are_refused():
    kinds = ["sliding_attention", "full_attention"] * 2
    with pytest.raises(ValueError, match="layer_types"):
        from_hf_config({**QWEN, **WINDOWS, "layer_types": kinds})


def custom(config, layer):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"qk_norm": True, "qkv_bias": True}, "qk_norm and qkv_bias together"),
        ({"sliding_window": 8, "full_layers": 1}, "full_layers=1 with a sliding window"),
        ({"attention": custom}, "is a part of your own"),
        ({"mlp": custom}, "is a part of your own"),
    ],
)
def test_a_network_that_no_family_has_is_refused(changed, said):
    config = GPTConfig(n_layer=2, d_model=8, n_head=2, **changed)
    with pytest.raises(ValueError, match=said):
        to_hf_config(config, torch.float32)


def test_heads_that_llama_would_refuse_are_written_as_mistral_without_a_window():
    config = GPTConfig(d_model=50, n_head=4, head_dim=8)
    described = to_hf_config(config, torch.bfloat16)
    assert described["architectures"] == ["MistralForCausalLM"]
    assert described["sliding_window"] is None
    assert described["torch_dtype"] == "bfloat16"
