import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from lit_llm.training.allocator import keep_freed_memory

def step():
    kept = [torch.ones(2**20) for _ in range(7)] + [torch.ones(2**24)]  # 4 MiB each and 64

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

LARGE = """
import ctypes
from lit_llm.training.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
keep_freed_memory()
block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(5 * 2**30)))  # never touched: no page is taken
end = libc.sbrk(0)
libc.free(block)
print(end - libc.sbrk(0))
"""

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc is told anything"
)


def pages(how: str, **settings: str) -> int:
    """That ten steps asked the system for."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT, how]
    finished = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**unset, **settings}
    )
    return int(finished.stdout)


def test_a_step_gets_its_memory_without_asking_the_system_again():
    asked_for = 10 * (7 * 4 + 64) * 2**20 // 4096  # 235,520 pages, if each step fetched its own
    assert pages("keep") < 0.02 * asked_for < pages("leave")


def test_what_the_user_has_told_the_c_library_stays():
    assert pages("keep", MALLOC_TRIM_THRESHOLD_="0") > 235_520 * 0.02


def test_gigabytes_at_the_end_of_the_heap_are_kept_too():
    command = [sys.executable, "-c", LARGE]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"
