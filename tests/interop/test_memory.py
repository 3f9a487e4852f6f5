"""Importing a model of 1.9 GB takes its own size in memory, and little more."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.checkpoint.hf.published import publish

ROOT = Path(__file__).parents[2]
SIZES = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}
PROGRAM = """
import re, resource, sys
from pathlib import Path
from lit_llm.checkpoint.hf.read import import_hf
import_hf(Path(sys.argv[1]), Path(sys.argv[2]))
ours = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(ours, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.interop
@pytest.mark.timeout(1800)
def test_importing_takes_the_memory_of_the_weights(tmp_path, found):
    publish(
        tmp_path / "theirs",
        "TinyLlama",
        dtype=torch.bfloat16,
        max_shard_size="500MB",
        std=0.02,
        **SIZES,
    )
    files = list((tmp_path / "theirs").glob("*.safetensors"))
    assert len(files) > 2
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "theirs", tmp_path / "ours"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    weights = sum(file.stat().st_size for file in files)
    ours, theirs = (1024 * int(kilobytes) / weights for kilobytes in done.stdout.split())
    found(f"{weights / 1e9:.1f} GB in bfloat16", "peak memory over it, all included", f"{ours:.2f}")
    found(f"{weights / 1e9:.1f} GB in bfloat16", "the same of transformers", f"{theirs:.2f}")
    assert ours < 1.3
