from pathlib import Path

import pytest
import torch

from lit_llm.checkpoint.consolidate import consolidate
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.manifest import CheckpointError, verify
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.sharded_io import OneRank, save_distributed
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT


def _checkpoint(tokenizer, tied: bool = True) -> dict:
    """As Lightning makes it after one step of AdamW."""
    config = GPTConfig(
        vocab_size=7, max_seq_len=6, n_layer=1, d_model=8, n_head=4, d_ff=5, tie_embeddings=tied
    )
    torch.manual_seed(3)
    gpt = GPT(config)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=0.25)
    gpt(torch.tensor([[1, 5, 0, 6]])).square().mean().backward()
    optimizer.step()
    return {
        "global_step": 1,
        "state_dict": {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()],
        "lit_llm": {"bundle": {"model": gpt_to_plain(config)}, "tokenizer": tokenizer},
    }


@pytest.fixture
def tokenizer(theirs):
    return theirs.Letters("abcdefg")


@pytest.fixture
def sharded(tmp_path, tokenizer) -> Path:
    save_distributed(_checkpoint(tokenizer), tmp_path / "sharded", OneRank())
    return tmp_path / "sharded"


@pytest.mark.parametrize("tied", [False, True])
def test_the_result_is_what_one_process_would_have_saved(tmp_path, tokenizer, tied):
    save_distributed(_checkpoint(tokenizer, tied), tmp_path / "sharded", OneRank())
    FolderCheckpointIO().save_checkpoint(_checkpoint(tokenizer, tied), tmp_path / "plain")
    consolidate(tmp_path / "sharded", tmp_path / "one")
    verify(tmp_path / "one")
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in set(names) - {"training.ckpt", "manifest.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    one, plain = (
        torch.load(tmp_path / form / "training.ckpt", weights_only=True)
        for form in ("one", "plain")
    )
    assert one.keys() == plain.keys()
    (one,), (plain,) = one["optimizer_states"], plain["optimizer_states"]
    assert one["param_groups"] == plain["param_groups"]
    assert one["state"].keys() == plain["state"].keys()
    for number, entries in plain["state"].items():
        assert one["state"][number].keys() == entries.keys()
        for key, tensor in entries.items():
            assert torch.equal(one["state"][number][key], tensor)
            assert one["state"][number][key].dtype == tensor.dtype


def test_a_plain_checkpoint_is_copied(tmp_path, tokenizer):
    FolderCheckpointIO().save_checkpoint(_checkpoint(tokenizer), tmp_path / "plain")
    consolidate(tmp_path / "plain", tmp_path / "copy")
    for path in (tmp_path / "plain").iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()


def test_a_copy_that_differs_is_no_checkpoint(tmp_path, tokenizer, monkeypatch):
    FolderCheckpointIO().save_checkpoint(_checkpoint(tokenizer), tmp_path / "plain")
    monkeypatch.setattr("shutil.copyfile", lambda source, target: target.write_bytes(b"{}"))
    with pytest.raises(CheckpointError, match="is damaged"):
        consolidate(tmp_path / "plain", tmp_path / "copy")
    assert [path.name for path in tmp_path.glob("copy*")] == []


def test_a_damaged_checkpoint_is_not_consolidated(sharded, tmp_path):
    path = sharded / "shard-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"shard-00000\.safetensors is damaged"):
        consolidate(sharded, tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_nothing_is_replaced(sharded, tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        consolidate(sharded, tmp_path / "one")
    assert list((tmp_path / "one").iterdir()) == []
