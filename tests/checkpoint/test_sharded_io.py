"""Functions that take a folder run in processes of their own, which talk by gloo: see `gloo`."""

import dataclasses
import errno
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from lit_llm.checkpoint import sharded_io
from lit_llm.checkpoint.bundle import load_model
from lit_llm.checkpoint.find import newest_valid, resolve
from lit_llm.checkpoint.manifest import CheckpointError, verify
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.sharded_io import (
    OneRank,
    ProcessGroupRanks,
    load_distributed,
    save_distributed,
)
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT

CONFIG = GPTConfig(vocab_size=7, max_seq_len=6, n_layer=1, d_model=8, n_head=4, d_ff=7)
LAYOUTS = {  # per number of processes; neither 2 nor 4 divide the 7 channels of the MLP
    1: ["fsdp-1"],
    2: ["fsdp-2", "tp-2", "2d-1x2"],
    4: ["fsdp-4", "tp-4", "2d-2x2", "hsdp-2x2"],
}


def _network(layout: str = "plain") -> GPT:
    """A network spread over devices as strategies do: the name and the sizes of a mesh."""
    torch.manual_seed(3)
    gpt = GPT(CONFIG)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.normal_()
    name, _, sizes = layout.partition("-")
    if name == "plain":
        return gpt
    meshes = {"fsdp": "shard", "tp": "tensor", "2d": "shard tensor", "hsdp": "replicate shard"}
    names = tuple(meshes[name].split())
    mesh = init_device_mesh("cpu", tuple(map(int, sizes.split("x"))), mesh_dim_names=names)
    if "tensor" in names:
        plan = {
            "embed": RowwiseParallel(),
            "lm_head": ColwiseParallel(),
            "blocks.0.attn.q_proj": ColwiseParallel(),
            "blocks.0.attn.o_proj": RowwiseParallel(),
            "blocks.0.mlp.gate_proj": ColwiseParallel(),
            "blocks.0.mlp.up_proj": ColwiseParallel(),
            "blocks.0.mlp.down_proj": RowwiseParallel(),
            "norm": SequenceParallel(),
        }
        parallelize_module(gpt, mesh["tensor"], plan)  # leaves k_proj, v_proj and norm_1 whole
    if "shard" in names:
        for module in [*gpt.blocks, gpt]:
            fully_shard(module, mesh=mesh[names] if name == "hsdp" else mesh["shard"])
    return gpt


def _checkpoint(gpt: GPT) -> dict:
    """As Lightning makes it, with an AdamW that has seen 3 steps."""
    state = {
        number: {
            "step": torch.tensor(3.0),
            "exp_avg": parameter.detach() * 0.5,
            "exp_avg_sq": parameter.detach() * parameter.detach(),
            "kind": number % 2,
        }
        for number, parameter in enumerate(gpt.parameters())
    }
    group = {"lr": 0.25, "params": list(state)}
    return {
        "global_step": 3,
        "state_dict": {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()},
        "optimizer_states": [{"state": state, "param_groups": [group]}],
        "callbacks": {"best": torch.tensor([1.5, 2.5])},
        "lit_llm": {"bundle": {"model": gpt_to_plain(CONFIG)}, "tokenizer": None},
    }


def _tensors(checkpoint: dict) -> dict[str, Tensor]:
    state = checkpoint["optimizer_states"][0]["state"]
    moments = {
        f"{number}.{key}": value
        for number, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }
    return {**checkpoint["state_dict"], **moments}


def _assert_equal(loaded: dict, gpt: GPT) -> None:
    """Bit for bit what one process would have, and lying where the network's parts lie."""
    expected, got = _tensors(_checkpoint(_network())), _tensors(loaded)
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        assert torch.equal(whole, expected[name]), name
    for name, tensor in _tensors(_checkpoint(gpt)).items():
        assert isinstance(got[name], DTensor) == isinstance(tensor, DTensor), name
        if isinstance(tensor, DTensor):
            assert got[name].placements == tensor.placements, name
            assert torch.equal(got[name].to_local(), tensor.to_local()), name
    (optimizer,) = loaded["optimizer_states"]
    assert [optimizer["state"][n]["kind"] for n in range(4)] == [0, 1, 0, 1]
    assert optimizer["param_groups"][0]["lr"] == 0.25
    assert loaded["global_step"] == 3
    assert loaded["callbacks"]["best"].tolist() == [1.5, 2.5]


def _load(path: Path, gpt: GPT, ranks=None) -> dict:
    ranks = ranks or OneRank()
    return load_distributed(path, gpt.state_dict(), list(gpt.parameters()), ranks)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


# -- in several processes ------------------------------------------------------------------------


def save(folder: Path) -> None:
    """Save from each layout that this number of processes has."""
    for layout in LAYOUTS[dist.get_world_size()]:
        save_distributed(_checkpoint(_network(layout)), folder / layout, ProcessGroupRanks())


def load(folder: Path) -> None:
    """Load all that there is into each layout that this number of processes has."""
    for layout in [*LAYOUTS[dist.get_world_size()], "plain"]:
        gpt = _network(layout)
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            _assert_equal(_load(path, gpt, ProcessGroupRanks()), gpt)


def fail(folder: Path) -> None:
    """A save that fails in one process, at any stage, fails in all and leaves no trace."""
    ranks, checkpoint = ProcessGroupRanks(), _checkpoint(_network("fsdp-2"))
    target = folder / "run" / "step-00000003"
    save_distributed(checkpoint, target, ranks)
    write_shard, write_training = sharded_io.write_shard, sharded_io.write_training

    def spoil(error: Exception, *arguments) -> None:
        write_shard(*arguments)
        if ranks.rank == 1:
            raise error

    full = OSError(errno.ENOSPC, "No space left on device")
    for error, kind, text in [
        (full, OSError, "disk full while saving .*step-00000003"),
        (KeyError("a"), RuntimeError, "process 1 of 2 failed: KeyError: 'a'"),
    ]:
        sharded_io.write_shard = partial(spoil, error)
        with pytest.raises(kind, match=text):
            save_distributed(checkpoint, target, ranks)
        dist.barrier()
        assert [path.name for path in target.parent.iterdir()] == [target.name]
    sharded_io.write_shard = write_shard

    def refuse(*arguments) -> None:
        write_training(*arguments)
        raise KeyError("only rank 0 comes here")

    sharded_io.write_training = refuse
    with pytest.raises(RuntimeError, match="process 0 of 2 failed: KeyError"):
        save_distributed(checkpoint, target, ranks)
    dist.barrier()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    sharded_io.write_training = write_training
    verify(target)
    dist.barrier()
    save_distributed(checkpoint, target, ranks)  # and replaces it once it can
    dist.barrier()
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    verify(target)


def damage(folder: Path) -> None:
    """A flipped bit in any file is found by one process, and named by all."""
    ranks, gpt = ProcessGroupRanks(), _network("fsdp-2")
    target = folder / "run" / "step-00000003"
    names = sorted(path.name for path in target.iterdir())
    assert len(names) == 6  # two shards, their index, bundle.json, training.ckpt, the manifest
    for name in names:
        content = (target / name).read_bytes()
        dist.barrier()
        if ranks.rank == 0:
            _flip(target / name)
        dist.barrier()
        with pytest.raises(CheckpointError, match=f"{name} is damaged"):
            _load(target, gpt, ranks)
        if ranks.rank == 0:
            (target / name).write_bytes(content)
    dist.barrier()
    _assert_equal(_load(target, gpt, ranks), gpt)


def die(folder: Path) -> None:
    """When a process dies while it writes, the others go on to an error."""
    ranks, checkpoint = ProcessGroupRanks(), _checkpoint(_network("fsdp-2"))
    target = folder / "dead" / "step-00000003"

    def kill(*arguments) -> None:
        os._exit(0)

    if ranks.rank == 1:
        sharded_io.write_shard = kill
    with pytest.raises(RuntimeError, match="onnection"):
        save_distributed(checkpoint, target, ranks)
    assert list(target.parent.iterdir()) == []
    os._exit(0)  # nobody is left to end the group with


def test_two_processes_save_load_and_fail_as_one(gloo, tmp_path):
    """FSDP2, tensor parallelism, both, and a plain checkpoint: each loads what the others saved."""
    _save_plain(tmp_path / "plain")
    gloo(tmp_path, "save:2", "load:2", "fail:2", "damage:2", "die:2")
    for layout in LAYOUTS[2]:
        _assert_equal(_load_as_one_file(tmp_path / layout), _network())


@pytest.mark.slow
def test_any_layout_loads_any_other(gloo, tmp_path):
    """1, 2 and 4 processes; HSDP and uneven shards too."""
    _save_plain(tmp_path / "plain")
    gloo(tmp_path, "save:4", "save:2", "save:1", "load:4", "load:2", "load:1")


def _save_plain(path: Path) -> None:
    from lit_llm.checkpoint.lightning_io import FolderCheckpointIO

    FolderCheckpointIO().save_checkpoint(_checkpoint(_network()), path)


def _load_as_one_file(path: Path) -> dict:
    from lit_llm.checkpoint.lightning_io import FolderCheckpointIO

    return FolderCheckpointIO().load_checkpoint(path)


# -- in this process -----------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A sharded checkpoint, here of one shard."""
    save_distributed(_checkpoint(_network()), tmp_path / "run" / "step-00000003", OneRank())
    return tmp_path / "run" / "step-00000003"


def test_a_sharded_folder_is_a_checkpoint_like_any_other(sharded):
    verify(sharded)
    assert sorted(path.name for path in sharded.iterdir()) == [
        "bundle.json",
        "manifest.json",
        "shard-00000.safetensors",
        "shards.json",
        "training.ckpt",
    ]
    assert resolve(sharded.parent) == sharded
    assert newest_valid(sharded.parent) == (sharded, [])
    _assert_equal(_load_as_one_file(sharded), _network())


def test_no_tensor_of_the_network_or_optimizer_is_in_training_ckpt(sharded):
    training = torch.load(sharded / "training.ckpt", weights_only=True)
    assert training["state_dict"] == {}
    (optimizer,) = training["optimizer_states"]
    assert optimizer["state"] == {n: {"kind": n % 2} for n in range(12)}
    assert (sharded / "training.ckpt").stat().st_size < 4000


def test_prediction_reads_the_weights_of_a_sharded_folder(sharded, tmp_path):
    gpt, bundle = load_model(sharded)
    tokens_BT = torch.tensor([[1, 5, 0, 6]])
    assert torch.equal(gpt(tokens_BT), _network().eval()(tokens_BT))
    assert bundle.state.keys() == gpt.state_dict().keys()


def test_a_tied_matrix_is_stored_once_and_comes_back_under_both_names(tmp_path):
    config = dataclasses.replace(CONFIG, tie_embeddings=True)
    gpt = GPT(config)
    state = {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()}
    ours = {"bundle": {"model": gpt_to_plain(config)}, "tokenizer": None}
    save_distributed({"state_dict": state, "lit_llm": ours}, tmp_path / "a", OneRank())
    assert "model.lm_head.weight" not in (tmp_path / "a" / "shards.json").read_text()
    loaded = load_distributed(tmp_path / "a", gpt.state_dict(), [], OneRank())["state_dict"]
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["gpt.lm_head.weight"], gpt.embed.weight)
    again, _ = load_model(tmp_path / "a")
    assert again.lm_head.weight is again.embed.weight


def test_the_tokenizer_comes_back(tmp_path, theirs):
    checkpoint = _checkpoint(_network())
    checkpoint["lit_llm"]["tokenizer"] = theirs.Letters("abc")
    save_distributed(checkpoint, tmp_path / "a", OneRank())
    loaded = _load(tmp_path / "a", _network())
    assert loaded["lit_llm"]["tokenizer"].encode("cab") == [2, 0, 1]
    assert loaded["lit_llm"]["bundle"]["model"]["d_ff"] == 7


def test_without_parameters_no_state_of_an_optimizer_is_read(sharded):
    loaded = load_distributed(sharded, _network().state_dict(), [], OneRank())
    tensors = _tensors(loaded)
    assert tensors.keys() == loaded["state_dict"].keys()


def test_weights_alone_can_be_saved(tmp_path):
    """As ModelCheckpoint's save_weights_only does."""
    checkpoint = _checkpoint(_network())
    del checkpoint["optimizer_states"]
    save_distributed(checkpoint, tmp_path / "a", OneRank())
    assert "optimizer_states" not in _load(tmp_path / "a", _network())


@pytest.mark.parametrize("kind", ["sharded", "plain"])
def test_weights_of_another_network_are_refused(tmp_path, kind):
    if kind == "plain":
        _save_plain(tmp_path / "a")
    else:
        save_distributed(_checkpoint(_network()), tmp_path / "a", OneRank())
    other = GPT(dataclasses.replace(CONFIG, d_ff=6))
    text = r"mlp.gate_proj.weight has shape \(7, 8\), the model \(6, 8\)"
    with pytest.raises(ValueError, match=text):
        _load(tmp_path / "a", other)
    with pytest.raises(ValueError, match=r"blocks.1.norm_1.weight is missing"):
        _load(tmp_path / "a", GPT(dataclasses.replace(CONFIG, n_layer=2)))


def test_an_optimizer_of_fewer_parameters_is_refused(sharded):
    weights, parameters = _network().state_dict(), list(_network().parameters())[:9]
    with pytest.raises(ValueError, match=r"state of parameter \d+, but this optimizer has 9"):
        load_distributed(sharded, weights, parameters, OneRank())


def test_what_cannot_be_saved_in_shards_is_said(tmp_path):
    checkpoint = _checkpoint(_network())
    checkpoint["optimizer_states"] *= 2
    with pytest.raises(ValueError, match="one optimizer, got 2"):
        save_distributed(checkpoint, tmp_path / "a", OneRank())
    with pytest.raises(ValueError, match=r"nothing under checkpoint\['lit_llm'\]"):
        save_distributed({"state_dict": {}}, tmp_path / "a", OneRank())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_found_before_anything_is_written(tmp_path, monkeypatch):
    """The whole checkpoint must fit: 3 times the weights, and the rest."""
    asked = []
    begin = sharded_io.begin

    def ask(*arguments, bytes_needed: int, **rest):
        asked.append(bytes_needed)
        return begin(*arguments, **rest)

    monkeypatch.setattr(sharded_io, "begin", ask)
    gpt = _network()
    save_distributed(_checkpoint(gpt), tmp_path / "a", OneRank())
    weights = sum(parameter.nbytes for parameter in gpt.parameters())
    assert asked == [3 * weights + 12 * 4 + 2 * 4]  # the steps, and the callback's two numbers


def test_a_folder_that_another_node_does_not_see_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded_io, "begin", lambda *_, **__: tmp_path / "on-another-disk")
    with pytest.raises(CheckpointError, match="a file system that all nodes share"):
        save_distributed(_checkpoint(_network()), tmp_path / "a", OneRank())
