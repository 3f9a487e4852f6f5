import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lit_llm.callbacks import NanGuard, SpikeGuard
from lit_llm.optim import Muon
from lit_llm.training.gradients import normalize_and_clip
from lit_llm.training.guards import Guards
from lit_llm.training.skipping import skip_where, skips_on_device

OPTIMIZERS = {
    "fused AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5, fused=True),
    "fused Adam": lambda groups: torch.optim.Adam(groups, lr=0.1, amsgrad=True, fused=True),
    "Muon": lambda groups: Muon(groups, lr=0.1, weight_decay=0.5),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5, fused=False),
    "fused SGD": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True),
}
ON_DEVICE = ("fused AdamW", "fused Adam", "Muon")


def make(name: str, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.nn.Parameter(torch.randn(3, 5, generator=generator).to(dtype))
    vector = torch.nn.Parameter(torch.randn(4, generator=generator).to(dtype))
    groups = [{"params": [matrix], "kind": "matrix"}, {"params": [vector], "kind": "vector"}]
    if "Muon" not in name:
        groups = [{"params": group["params"]} for group in groups]
    return OPTIMIZERS[name](groups), [matrix, vector]


def step(optimizer, parameters, seed: int, *, skip: bool, spoil: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        gradient = torch.randn(parameter.shape, generator=generator) * spoil
        parameter.grad = gradient.to(parameter.dtype)
    skip_where(optimizer, torch.tensor(skip))
    optimizer.step()


def everything(optimizer, parameters) -> list[torch.Tensor]:
    state = optimizer.state_dict()["state"]
    tensors = [value for entries in state.values() for value in entries.values()]
    return [*parameters, *(value for value in tensors if isinstance(value, torch.Tensor))]


def equal(left, right) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_which_optimizers_decide_on_the_device():
    assert {name for name in OPTIMIZERS if skips_on_device(make(name)[0])} == set(ON_DEVICE)
    half_fused = torch.optim.AdamW(
        [{"params": [torch.ones(1)]}, {"params": [torch.ones(1)], "fused": False}], fused=True
    )
    assert not skips_on_device(half_fused)


@pytest.mark.parametrize("spoil", [1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_step_changes_nothing(name, dtype, spoil):
    optimizer, parameters = make(name, dtype)
    for seed in range(2):
        step(optimizer, parameters, seed, skip=False)
    before = copy.deepcopy(everything(optimizer, parameters))
    step(optimizer, parameters, 2, skip=True, spoil=spoil)
    assert equal(everything(optimizer, parameters), before)
    step(optimizer, parameters, 3, skip=False)
    assert not any(map(torch.equal, everything(optimizer, parameters), before))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_as_if_the_skipped_steps_had_not_been_even_the_first(name):
    (with_them, weights), (without, others) = make(name), make(name)
    for seed, skip in enumerate((True, False, True, True, False)):
        step(with_them, weights, seed, skip=skip, spoil=float("nan") if skip else 1.0)
        if not skip:
            step(without, others, seed, skip=False)
    assert equal(everything(with_them, weights), everything(without, others))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_that_nobody_judges_is_made_after_a_skipped_one(name):
    (judged, weights), (free, others) = make(name), make(name)
    step(judged, weights, 0, skip=True)
    for optimizer, parameters in ((judged, weights), (free, others)):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        skip_where(optimizer, None)
        optimizer.step()
    assert equal(everything(judged, weights), everything(free, others))


class NoReading(TorchDispatchMode):
    """Fails where the host asks a device for a number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "the host has waited for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_host_reads_nothing_where_the_device_decides(name):
    optimizer, parameters = make(name)
    guards = Guards()
    for guard in (NanGuard(), SpikeGuard(on_spike="skip", window=9)):
        guards.add(guard)

    def whole_step(number: int) -> None:
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        norm = normalize_and_clip(
            optimizer, factor=torch.tensor(1.0), clip_val=1.0, algorithm="norm"
        )
        skip_where(optimizer, guards.judge(number, torch.tensor(2.0), norm))
        optimizer.step()

    whole_step(1)
    with NoReading():
        if name in ON_DEVICE:
            for number in range(2, 20):
                whole_step(number)
        else:
            with pytest.raises(AssertionError, match="has waited"):
                whole_step(2)
