import copy

import pytest
import torch

from lit_llm.checkpoint.manifest import CheckpointError
from lit_llm.checkpoint.training_state import (
    put_optimizer_back,
    read_training,
    tensor_bytes,
    without_optimizer,
    without_weights,
)


@pytest.fixture
def checkpoint() -> dict:
    state = {3: {"exp_avg": torch.ones(2), "rms.scale": torch.zeros(1), "name": "matrix"}}
    return {
        "state_dict": {"gpt.embed.weight": torch.ones(3), "meter.gpt.count": torch.ones(1)},
        "optimizer_states": [{"state": state, "param_groups": [{"lr": 0.5, "params": [3]}]}],
        "loops": {"step": 7},
        "lit_llm": {"bundle": {}, "tokenizer": None},
    }


def test_the_weights_are_those_of_the_network_alone(checkpoint):
    training, weights = without_weights(checkpoint)
    assert list(weights) == ["embed.weight"]
    assert list(training["state_dict"]) == ["meter.gpt.count"]
    assert training.keys() == {"state_dict", "optimizer_states", "loops"}


def test_the_optimizers_tensors_are_split_off_and_put_back(checkpoint):
    before = copy.deepcopy(checkpoint)
    training, tensors = without_optimizer(checkpoint)
    assert list(tensors) == ["3.exp_avg", "3.rms.scale"]
    assert training["optimizer_states"][0]["state"] == {3: {"name": "matrix"}}
    assert checkpoint["optimizer_states"][0]["state"].keys() == {3}
    assert len(checkpoint["optimizer_states"][0]["state"][3]) == 3  # the Trainer's own: untouched
    put_optimizer_back(training, tensors)
    again, expected = training["optimizer_states"][0], before["optimizer_states"][0]
    assert again["param_groups"] == expected["param_groups"]
    assert again["state"].keys() == expected["state"].keys()
    assert again["state"][3].keys() == expected["state"][3].keys()
    assert torch.equal(again["state"][3]["rms.scale"], torch.zeros(1))


def test_a_save_of_weights_only_has_no_optimizer(checkpoint):
    del checkpoint["optimizer_states"]
    assert without_optimizer(checkpoint) == (checkpoint, {})


def test_bytes_are_counted_in_any_depth():
    tree = {"a": torch.zeros(3), "b": [(torch.zeros(2, dtype=torch.bfloat16), 7)], "c": "text"}
    assert tensor_bytes(tree) == 12 + 4


def test_a_file_that_would_have_to_be_called_or_is_no_state_is_named_and_not_run(tmp_path):
    class Call:
        def __reduce__(self):
            return (tmp_path.joinpath, ("never",))

    for content in ({"a": Call()}, torch.ones(2), [1, 2]):
        torch.save(content, tmp_path / "training.ckpt")
        with pytest.raises(CheckpointError, match=r"training\.ckpt is no file of a checkpoint"):
            read_training(tmp_path)
    (tmp_path / "training.ckpt").write_bytes(b"PK\x03\x04 and not much more")
    with pytest.raises(CheckpointError, match="do not use it"):
        read_training(tmp_path)
