import sys
from types import SimpleNamespace

import pytest
import torch

from lit_llm.callbacks import peak_memory as module
from lit_llm.callbacks.peak_memory import peak_memory

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
def test_a_process_remembers_the_memory_that_it_has_given_back():
    before = peak_memory(CPU)
    assert before is not None
    held = torch.ones(before // 4 + 10**7)  # float32: as much again, and 40 MB
    peak = peak_memory(CPU)
    assert peak is not None
    assert peak > before + 30e6
    del held
    assert peak_memory(CPU) >= peak  # type: ignore[operator]


def test_the_unit_is_bytes_on_linux_and_on_macos(monkeypatch):
    usage = SimpleNamespace(ru_maxrss=3_000_000)
    resource = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: usage)
    monkeypatch.setitem(sys.modules, "resource", resource)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert peak_memory(CPU) == 3_072_000_000  # it says KiB
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert peak_memory(CPU) == 3_000_000  # it says bytes


def test_where_the_peak_is_not_known_there_is_none(monkeypatch):
    assert peak_memory(torch.device("mps")) is None
    monkeypatch.setattr(module.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails, as on Windows
    assert peak_memory(CPU) is None


def test_a_gpu_is_asked_for_its_tensors(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda d: asked.append(d) or 5)
    assert peak_memory(torch.device("cuda", 1)) == 5
    assert asked == [torch.device("cuda", 1)]
