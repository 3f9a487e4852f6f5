import json
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lit_llm.checkpoint.bundle import (
    check_weights,
    load_bundle,
    load_model,
    read_meta,
    write_bundle,
)
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

SIZES = {"vocab_size": 11, "max_seq_len": 7, "n_layer": 3, "d_model": 12, "n_head": 2, "d_ff": 5}
SIZES["pad_vocab_to"] = 4  # 12 rows


def _network(config: GPTConfig) -> GPT:
    torch.manual_seed(3)
    return GPT(config).eval()


def _save(folder: Path, gpt: GPT, tokenizer=None, **meta) -> Path:
    meta = {"model": gpt_to_plain(gpt.config), "step": 500, **meta}
    write_folder(folder, lambda inner: write_bundle(inner, meta, gpt.state_dict(), tokenizer))
    return folder


def _logits(gpt: GPT) -> Tensor:
    return gpt(torch.tensor([[1, 10, 4, 0, 7]]))


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_comes_back_with_its_tokenizer_and_description(tmp_path, theirs, tied):
    gpt = _network(GPTConfig(**SIZES, tie_embeddings=tied, qk_norm=True))
    folder = _save(
        tmp_path / "step-00000500", gpt, theirs.Letters("abcdefghijk"), run="müsli", chat=False
    )
    again, bundle = load_model(folder)
    assert torch.equal(_logits(again), _logits(gpt))
    assert bundle.config == gpt.config
    assert bundle.state.keys() == gpt.state_dict().keys()
    assert bundle.tokenizer.encode("cab") == [2, 0, 1]
    assert type(bundle.tokenizer) is theirs.Letters
    assert (bundle.meta["run"], bundle.meta["step"], bundle.meta["format"]) == ("müsli", 500, 1)


def test_a_tied_output_projection_is_stored_once_and_stays_tied(tmp_path):
    folder = _save(tmp_path / "a", _network(GPTConfig(**SIZES, tie_embeddings=True)))
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    gpt, bundle = load_model(folder)
    assert gpt.lm_head.weight is gpt.embed.weight
    assert bundle.state["lm_head.weight"] is bundle.state["embed.weight"]
    assert sum(parameter.numel() for parameter in gpt.parameters()) == sum(
        tensor.numel() for tensor in load_file(folder / "model.safetensors").values()
    )


def test_an_untied_output_projection_is_stored_beside_the_embedding(tmp_path):
    folder = _save(tmp_path / "a", _network(GPTConfig(**SIZES)))
    stored = load_file(folder / "model.safetensors")
    assert stored["lm_head.weight"].shape == stored["embed.weight"].shape == (12, 12)
    assert not torch.equal(stored["lm_head.weight"], stored["embed.weight"])


def test_tied_embeddings_that_have_come_apart_are_not_saved(tmp_path):
    gpt = _network(GPTConfig(**SIZES, tie_embeddings=True))
    gpt.lm_head.weight = nn.Parameter(gpt.embed.weight.detach() + 1)
    with pytest.raises(AssertionError, match="come apart"):
        _save(tmp_path / "a", gpt)
    assert list(tmp_path.iterdir()) == []


def test_tables_that_no_checkpoint_holds_are_computed_again(tmp_path, theirs):
    attention = partial(theirs.Scaled, by=0.5)
    gpt = _network(GPTConfig(**SIZES, rope_theta=50.0, attention=attention))
    again, _ = load_model(_save(tmp_path / "a", gpt))
    assert torch.equal(again.cos_SE, gpt.cos_SE)
    assert torch.equal(again.sin_SE, gpt.sin_SE)
    assert again.blocks[2].attn.table.tolist() == [2.0, 2.5, 3.0]  # 0.5 * (0, 1, 2) + layer
    assert torch.equal(_logits(again), _logits(gpt))


def test_parameters_that_a_users_part_shares_stay_shared(tmp_path, theirs):
    gpt = _network(GPTConfig(**SIZES, mlp=theirs.Shared))
    again, _ = load_model(_save(tmp_path / "a", gpt))
    assert again.blocks[1].mlp.second.weight is again.blocks[1].mlp.first.weight
    assert torch.equal(_logits(again), _logits(gpt))


def test_weights_keep_their_dtype_and_rope_stays_float32(tmp_path):
    gpt = _network(GPTConfig(**SIZES))
    for parameter in gpt.parameters():
        parameter.data = parameter.data.bfloat16()
    again, _ = load_model(_save(tmp_path / "a", gpt))
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    assert again.cos_SE.dtype == torch.float32
    assert torch.equal(_logits(again), _logits(gpt))


def test_a_loaded_model_is_in_eval_mode_and_can_be_trained(tmp_path):
    gpt, _ = load_model(_save(tmp_path / "a", _network(GPTConfig(**SIZES, dropout=0.5))))
    assert not any(module.training for module in gpt.modules())
    assert all(parameter.requires_grad for parameter in gpt.parameters())


def test_loading_draws_no_random_numbers(tmp_path):
    folder = _save(tmp_path / "a", _network(GPTConfig(**SIZES)))
    torch.manual_seed(1)
    expected = torch.rand(5)
    torch.manual_seed(1)
    load_model(folder)
    assert torch.equal(torch.rand(5), expected)


def test_the_first_three_weights_that_do_not_fit_are_named():
    gpt = _network(GPTConfig(**SIZES))
    state = gpt.state_dict()
    del state["norm.weight"]
    state["blocks.9.extra"] = torch.zeros(2)
    state["embed.weight"] = torch.zeros(13, 12)
    state["lm_head.weight"] = torch.zeros(13, 12)
    with pytest.raises(ValueError, match="do not fit") as error:
        check_weights(gpt, state)
    assert str(error.value) == (
        "the weights do not fit the model: norm.weight is missing; "
        "blocks.9.extra is unknown to the model; "
        "embed.weight has shape (13, 12), the model (12, 12) (and 1 more)"
    )


def test_a_damaged_file_is_noticed_unless_verification_is_switched_off(tmp_path):
    folder = _save(tmp_path / "a", _network(GPTConfig(**SIZES)))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_model(folder)
    load_model(folder, verify=False)


def test_a_bundle_of_a_later_format_is_refused_with_both_numbers(tmp_path):
    (tmp_path / "bundle.json").write_text(json.dumps({"format": 3, "model": {}}))
    with pytest.raises(CheckpointError, match="has format 3, this lit-llm reads up to 2: install"):
        read_meta(tmp_path)


def test_a_checkpoint_of_something_else_holds_no_model(tmp_path):
    write_folder(tmp_path / "a", lambda folder: (folder / "training.ckpt").write_bytes(b""))
    with pytest.raises(CheckpointError, match=r"holds no model: bundle\.json is missing"):
        load_bundle(tmp_path / "a")


def test_values_that_json_does_not_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"bundle\.json takes plain values only.*PosixPath"):
        _save(tmp_path / "a", _network(GPTConfig(**SIZES)), config={"root": Path("x")})
    assert list(tmp_path.iterdir()) == []


def test_all_files_have_the_same_permissions(tmp_path):
    """Safetensors alone makes files that only their owner may read."""
    folder = _save(tmp_path / "a", _network(GPTConfig(**SIZES)))
    modes = {stat.filemode(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 1, modes


def test_reading_a_bundle_imports_neither_lightning_nor_dtensor():
    """The second would take another second; what is read in one process needs none."""
    heavy = "{'lightning', 'torch.distributed.tensor'}"
    code = f"import sys, lit_llm.checkpoint.bundle; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
