import json

import pytest
import torch
from safetensors.torch import load_file

from lit_llm.checkpoint.bundle import load_bundle
from lit_llm.checkpoint.hf.names import to_hf
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.peft import to_peft

TOKENS_BT = torch.tensor([[1, 10, 4, 0, 7, 3, 3], [2, 2, 9, 5, 8, 1, 6]])


def test_adapters_are_written_under_the_names_of_peft(adapted, tmp_path):
    assert to_peft(adapted.folder, tmp_path / "peft", base="someone/base") == []
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/base"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 6.0, 0.0)
    assert config["target_modules"] == ["down_proj", "q_proj"]
    weights = load_file(tmp_path / "peft/adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
    assert torch.equal(weights[name], adapted.gpt.blocks[1].mlp.down_proj.lora_B)
    assert len(weights) == 2 * 2 * 2


def test_a_base_that_is_not_named_is_said_to_the_user(adapted, tmp_path):
    (line,) = to_peft(adapted.folder, tmp_path / "peft")
    assert str(adapted.base) in line
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None


def test_whole_weights_are_refused(adapted, tmp_path):
    with pytest.raises(CheckpointError, match="holds no adapters: give a checkpoint of a LoRA run"):
        to_peft(adapted.base, tmp_path / "peft")


def test_more_than_adapters_is_refused(save_lora, tmp_path):
    adapted = save_lora(tmp_path, whole=("embed", "lm_head"))
    with pytest.raises(ValueError, match=r"learned embed, lm_head as a whole .* merge them"):
        to_peft(adapted.folder, tmp_path / "peft")


@pytest.mark.interop
@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"tie_embeddings": True, "n_head": 6, "n_kv_head": 2}])
def test_peft_loads_them_and_computes_the_same(save_lora, tmp_path, settings):
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    adapted = save_lora(tmp_path, **settings)
    to_peft(adapted.folder, tmp_path / "peft")
    gpt = adapted.gpt.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=gpt.padded_vocab_size,
            hidden_size=gpt.d_model,
            intermediate_size=gpt.ff_dim,
            num_hidden_layers=gpt.n_layer,
            num_attention_heads=gpt.n_head,
            num_key_value_heads=gpt.kv_heads,
            head_dim=gpt.channels_per_head,
            rms_norm_eps=gpt.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": gpt.rope_theta},
            tie_word_embeddings=gpt.tie_embeddings,
        )
    ).eval()
    state = load_bundle(adapted.base).state
    theirs.load_state_dict({to_hf(name): weight for name, weight in state.items()})
    expected = adapted.gpt(TOKENS_BT)
    bound = 1e-5 * float(expected.abs().max())
    alone = theirs(TOKENS_BT).logits[..., : gpt.vocab_size]
    assert float((alone - expected).abs().max()) > 100 * bound  # without adapters it is another
    found = PeftModel.from_pretrained(theirs, tmp_path / "peft")(TOKENS_BT)
    off = (found.logits[..., : gpt.vocab_size] - expected).abs().max()
    assert float(off) <= bound
