import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_llm.checkpoint import folder as folders
from lit_llm.checkpoint.folder import write_folder
from lit_llm.optim.groups import parameter_groups
from lit_llm.optim.muon import Muon
from lit_llm.training.space import check_space, optimizer_bytes

Usage = namedtuple("Usage", "total used free")


def _network() -> nn.Module:
    """1,000 numbers: 4,000 bytes, a buffer of 40, and one that is not saved."""
    network = nn.Sequential(nn.Linear(30, 30), nn.Linear(10, 7, bias=False))
    network.register_buffer("table", torch.zeros(10))
    network.register_buffer("made_anew", torch.zeros(99), persistent=False)
    return network


ADAMW = 2 * 4000 + 3 * 4  # two moments, and a count of steps for each of three parameters


@pytest.fixture
def free(monkeypatch):
    """Set the bytes that the disk says are free."""

    def set_free(number: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, number))

    return set_free


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p),
    "fused": lambda p: torch.optim.AdamW(p, fused=True),
    "foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "amsgrad": lambda p: torch.optim.AdamW(p, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adafactor": lambda p: torch.optim.Adafactor(p),
    "adagrad": lambda p: torch.optim.Adagrad(p),
}


@pytest.mark.parametrize("name", [*OPTIMIZERS, "muon"])
def test_the_state_has_the_size_that_it_has_after_a_step(name):
    network = _network()
    if name == "muon":
        optimizer = Muon(parameter_groups(network, None))
    else:
        optimizer = OPTIMIZERS[name](network.parameters())
    before = {p: p.detach().clone() for p in network.parameters()}
    estimate = optimizer_bytes(optimizer)
    assert all(torch.equal(p, was) for p, was in before.items())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = [value for entries in optimizer.state.values() for value in entries.values()]
    assert estimate == sum(value.nbytes for value in state if isinstance(value, torch.Tensor))


def test_the_optimizer_itself_is_left_alone():
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters())
    steps = []
    optimizer.register_step_pre_hook(lambda *_: steps.append(1))
    assert optimizer_bytes(optimizer) == ADAMW
    assert not optimizer.state
    assert not steps
    assert all(parameter.grad is None for parameter in network.parameters())


def test_frozen_parameters_have_no_state():
    network = _network()
    network[1].requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters())
    assert optimizer_bytes(optimizer) == 2 * 930 * 4 + 2 * 4


def test_a_rule_that_fails_without_numbers_counts_as_adamw(monkeypatch):
    def curious(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["seen"] = torch.zeros_like(parameter)
            parameter.sum().item()

    monkeypatch.setattr(torch.optim.AdamW, "step", curious)
    assert optimizer_bytes(torch.optim.AdamW(_network().parameters())) == 8000


class Anothers(torch.optim.AdamW):
    """Knows its parameters by a table, as bitsandbytes does, and counts its steps."""

    def __init__(self, params):
        super().__init__(params)
        self.tables, self.steps = {}, []

    def step(self, closure=None):
        self.tables.setdefault("table", torch.zeros_like(self.param_groups[0]["params"][0]))
        self.steps.append(1)
        return super().step(closure)


def test_anothers_rule_is_not_run_and_counts_as_adamw_until_its_state_is_there():
    network = _network()
    optimizer = Anothers(network.parameters())
    assert optimizer_bytes(optimizer) == 8000
    assert (optimizer.tables, optimizer.steps) == ({}, [])
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer_bytes(optimizer) == ADAMW


def test_what_a_rule_keeps_beside_its_state_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", Anothers.step)
    optimizer = torch.optim.AdamW(_network().parameters())
    optimizer.tables, optimizer.steps = {}, []
    optimizer_bytes(optimizer)
    assert (optimizer.tables, optimizer.steps) == ({}, [])


def test_room_for_two_checkpoints_is_asked_for(tmp_path, free):
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters())
    each = 4040 + ADAMW
    run = tmp_path / "not" / "there" / "yet"
    free(2 * each)
    check_space(run, network, [optimizer])
    free(2 * each - 1)
    with pytest.raises(ValueError, match="two checkpoints do not fit") as error:
        check_space(run, network, [optimizer])
    message = str(error.value)
    assert f"they need {2 * each:,} bytes ({each:,} each), {2 * each - 1:,} are free" in message
    assert str(run) in message
    assert message.count("\n") == 1
    assert not (tmp_path / "not").exists()


def _held(run: Path, step: int, size: int) -> None:
    def write(inner: Path) -> None:
        (inner / "content").write_bytes(bytes(size))

    write_folder(run / f"step-{step:08d}", write)


def test_what_a_run_has_saved_already_counts(tmp_path, free):
    network = _network()
    _held(tmp_path, 1, 4040)
    free(4040)
    check_space(tmp_path, network, [])  # 4,040 there and 4,040 free: two
    free(4039)
    with pytest.raises(ValueError, match="beside the 4,040 that are there"):
        check_space(tmp_path, network, [])
    _held(tmp_path, 2, 4040)
    with pytest.raises(ValueError, match=r"need 4,040 bytes beside the 8,080 .* 4,039 are free"):
        check_space(tmp_path, network, [])  # the next one must fit, however many there are


def test_a_limit_on_the_size_of_a_file_is_known_before(tmp_path, monkeypatch):
    network = _network()
    optimizer = torch.optim.AdamW(network.parameters())  # its file is the larger one
    monkeypatch.setattr(resource, "getrlimit", lambda what: (ADAMW - 1, ADAMW))
    assert folders.file_size_limit() == ADAMW - 1
    with pytest.raises(ValueError, match=rf"a file of {ADAMW:,} bytes, .* than {ADAMW - 1:,} to"):
        check_space(tmp_path, network, [optimizer])
    check_space(tmp_path, network, [optimizer], files=2)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY,) * 2)
    check_space(tmp_path, network, [optimizer])


def test_tied_weights_count_once(tmp_path, free):
    network = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    network[1].weight = network[0].weight
    free(2 * 8 * 8 * 4)
    check_space(tmp_path, network, [])
