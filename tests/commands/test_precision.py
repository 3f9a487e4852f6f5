import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from lit_llm.commands.precision import auto_precision, device_kind


@pytest.fixture
def machine(monkeypatch):
    """A machine with the given parts."""

    def machine(
        *,
        cuda: bool = False,
        mps: bool = False,
        bf16: bool = False,
        amx: bool = False,
        avx512_bf16: bool = False,
    ):
        monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: cuda))
        monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: mps))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
        # an emulated bfloat16 is slower than float32, and does not count
        supported = lambda including_emulation=True: bf16 or including_emulation  # noqa: E731
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)

    return machine


@pytest.mark.parametrize(
    ("parts", "accelerator", "kind"),
    [
        ({}, "auto", "cpu"),
        ({}, "gpu", "gpu"),  # there is none: whoever asked for it is told
        ({"cuda": True}, "auto", "cuda"),
        ({"cuda": True}, "gpu", "cuda"),
        ({"cuda": True}, "cpu", "cpu"),
        ({"mps": True}, "auto", "mps"),
        ({"mps": True}, "gpu", "mps"),
        ({"mps": True}, "cpu", "cpu"),
    ],
)
def test_the_device_is_what_was_asked_for_on_this_machine(machine, parts, accelerator, kind):
    machine(**parts)
    assert device_kind(accelerator) == kind


@pytest.mark.parametrize(
    ("parts", "kind", "d_model", "precision"),
    [
        ({"cuda": True, "bf16": True}, "cuda", 64, "bf16-mixed"),
        ({"cuda": True, "bf16": False}, "cuda", 4096, "32-true"),
        ({"cuda": True, "bf16": True}, "cpu", 4096, "32-true"),
        ({"mps": True}, "mps", 4096, "32-true"),
        ({}, "tpu", 4096, "32-true"),
        ({}, "cpu", 4096, "32-true"),
        ({"amx": True}, "cpu", 256, "bf16-mixed"),
        ({"amx": True}, "cpu", 255, "32-true"),
        ({"amx": True}, "cpu", None, "32-true"),
        ({"avx512_bf16": True}, "cpu", 128, "bf16-mixed"),
        ({"avx512_bf16": True}, "cpu", 127, "32-true"),
        ({"amx": True, "avx512_bf16": True}, "cpu", 255, "32-true"),  # AMX does the work
    ],
)
def test_bfloat16_is_chosen_only_where_it_is_faster(machine, parts, kind, d_model, precision):
    machine(**parts)
    chosen, reason = auto_precision(kind, d_model)
    assert chosen == precision
    assert reason
