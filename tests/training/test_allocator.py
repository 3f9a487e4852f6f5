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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_a_step_gets_its_memory_without_asking_the_system_again():
    def pages(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    asked_for = 10 * (7 * 4 + 64) * 2**20 // 4096  # 235,520 pages, if each step fetched its own
    assert pages("keep") < 0.02 * asked_for < pages("leave")
