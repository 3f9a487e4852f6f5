"""A checkpoint of either form, read in one process; test_sharded_io.py has the others."""

from pathlib import Path

import pytest
import torch

from lit_llm.checkpoint.bundle import check_weights
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.reader import Reader
from lit_llm.checkpoint.sharded_io import OneRank, save_distributed
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

CONFIG = GPTConfig(
    vocab_size=7, max_seq_len=6, n_layer=1, d_model=8, n_head=4, d_ff=5, tie_embeddings=True
)
MOMENT = torch.arange(8.0, dtype=torch.bfloat16)


@pytest.fixture(params=["plain", "sharded"])
def folder(request, tmp_path) -> Path:
    torch.manual_seed(3)
    state = {f"gpt.{name}": tensor for name, tensor in GPT(CONFIG).state_dict().items()}
    moments = {0: {"step": torch.tensor(2.0), "exp_avg": MOMENT}, 1: {"kind": "vector"}}
    checkpoint = {
        "state_dict": state,
        "optimizer_states": [{"state": moments, "param_groups": []}],
        "callbacks": {"best": [torch.tensor([1.5])]},
        "lit_llm": {"bundle": {"model": gpt_to_plain(CONFIG)}, "tokenizer": None},
    }
    if request.param == "plain":
        FolderCheckpointIO().save_checkpoint(checkpoint, tmp_path / "a")
    else:
        save_distributed(checkpoint, tmp_path / "a", OneRank())
    return tmp_path / "a"


def test_it_names_and_describes_every_tensor(folder):
    reader = Reader(folder)
    weights = {f"model.{name}" for name in GPT(CONFIG).state_dict()}
    assert set(reader.names) == weights | {"optimizer.0.step", "optimizer.0.exp_avg"}
    assert reader.describe("model.blocks.0.mlp.gate_proj.weight").shape == (5, 8)
    assert reader.describe("optimizer.0.exp_avg").dtype == torch.bfloat16
    assert reader.describe("model.lm_head.weight").device.type == "meta"
    check_weights(GPT(CONFIG), reader.skeleton())


def test_a_tensor_comes_back_as_it_was(folder):
    reader = Reader(folder)
    torch.manual_seed(3)
    for name, tensor in GPT(CONFIG).state_dict().items():
        assert torch.equal(reader.read(f"model.{name}"), tensor)
        assert torch.equal(reader.read_like(f"model.{name}", tensor.to("meta")), tensor)
    assert torch.equal(reader.read("optimizer.0.exp_avg"), MOMENT)
    assert reader.read("optimizer.0.step") == 2


def test_what_was_read_does_not_change_with_the_file(folder):
    """A file that tensors are mapped from may be replaced while they are in use."""
    reader = Reader(folder)
    tensors = [reader.read(name) for name in reader.names]
    best = reader.training()["callbacks"]["best"][0]
    before = [tensor.clone() for tensor in tensors]
    for path in folder.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    assert all(map(torch.equal, tensors, before))
    assert best.tolist() == [1.5]


def test_training_lacks_the_optimizers_tensors_only(folder):
    training = Reader(folder).training()
    assert training["optimizer_states"] == [{"state": {1: {"kind": "vector"}}, "param_groups": []}]
    assert training["state_dict"] == {}
    assert training["callbacks"] == {"best": [torch.tensor([1.5])]}


def test_a_model_without_state_of_training_can_be_read(folder):
    """As somebody would publish it."""
    (folder / "training.ckpt").unlink()
    reader = Reader(folder)
    check_weights(GPT(CONFIG), reader.skeleton())
    with pytest.raises(CheckpointError, match=r"no training\.ckpt.*model\.init_from"):
        reader.training()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"bundle\.json is missing"):
        Reader(tmp_path)
