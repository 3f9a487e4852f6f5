import importlib
import os
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lit_llm.checkpoint.base import describe_base
from lit_llm.checkpoint.bundle import write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.lightning_io import FolderCheckpointIO
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.checkpoint.sharded_io import OneRank, save_distributed
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.lora import Lora, add_adapters, init_adapters

SOURCE = '''
    """What a user keeps in a file of their own: an attention, an MLP, a tokenizer, an objective."""

    from dataclasses import dataclass
    from pathlib import Path

    import torch
    from torch import nn

    from lit_llm.model.attention import GroupedQueryAttention
    from lit_llm.model.config import GPTConfig
    from lit_llm.tokenizer.base import Tokenizer


    class Scaled(GroupedQueryAttention):
        """Has a table of its own that no checkpoint holds, computed in __init__."""

        def __init__(self, config, layer: int, span: tuple[int, int] = (1, 2), by: float = 1.0):
            super().__init__(config, layer)
            self.span, self.by = span, by
            self.register_buffer("table", torch.arange(3.0) * by + layer, persistent=False)

        def forward(self, x_BTD, rope, layout, cache):
            return super().forward(x_BTD, rope, layout, cache) * self.by + self.table[2]


    class Shared(nn.Module):
        """An MLP whose two matrices are one parameter."""

        def __init__(self, config, layer: int) -> None:
            super().__init__()
            self.first = nn.Linear(config.d_model, config.d_model, bias=False)
            self.second = nn.Linear(config.d_model, config.d_model, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x_BTD):
            return self.second(self.first(x_BTD).relu())


    def shared(config: GPTConfig, layer: int) -> nn.Module:
        return Shared(config, layer)


    class Letters(Tokenizer):
        """One id per letter of an alphabet."""

        def __init__(self, alphabet: str) -> None:
            self.alphabet = alphabet

        vocab_size = property(lambda self: len(self.alphabet))
        special = property(lambda self: {})
        fingerprint = property(lambda self: self.alphabet)

        def encode(self, text: str) -> list[int]:
            return [self.alphabet.index(letter) for letter in text]

        def token_bytes(self, id: int) -> bytes:
            return self.alphabet[id].encode()

        def save(self, folder: Path) -> None:
            (folder / "alphabet.txt").write_text(self.alphabet)

        @classmethod
        def load(cls, folder: Path) -> "Letters":
            return cls((folder / "alphabet.txt").read_text())


    class Remembers:
        def __init__(self, share: float = 0.5, name: str | None = None) -> None:
            self.share, self.name = share, name


    class Forgets:
        def __init__(self, share: float = 0.5) -> None:
            self.half = share / 2


    @dataclass
    class Data:
        share: float = 0.25


    class Outer:
        class Inner(GroupedQueryAttention):
            pass
'''


@pytest.fixture
def theirs(tmp_path, monkeypatch) -> ModuleType:
    """A user's module, outside the package."""
    folder = tmp_path / "their_project"
    folder.mkdir()
    (folder / "their_parts.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("their_parts")
    del sys.modules["their_parts"]


# Imports once, then forks the processes of each step: `FUNCTION:PROCESSES` of a test file.
LAUNCHER = """
import importlib.util, os, sys, traceback
from datetime import timedelta
from pathlib import Path
import torch._dynamo  # fully_shard does; here once instead of in each process
import torch.distributed as dist

file, folder, *steps = sys.argv[1:]
spec = importlib.util.spec_from_file_location("workers", file)
workers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(workers)

def child(function, rank, size, store):
    store = f"file://{store}"
    dist.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    getattr(workers, function)(Path(folder))
    dist.barrier()
    dist.destroy_process_group()

for number, step in enumerate(steps):
    function, size = step.split(":")
    children = []
    for rank in range(int(size)):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                child(function, rank, int(size), f"{folder}/store-{number}")
            except BaseException:
                print(f"{step}, rank {rank}:", traceback.format_exc(), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
    if any([os.waitpid(pid, 0)[1] for pid in children]):
        sys.exit(f"{step} failed")
"""


@pytest.fixture
def gloo(request):
    """Runs functions of the test's file in processes that talk by gloo, one step after another."""

    def run(folder: Path, *steps: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", LAUNCHER, request.path, folder, *steps],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    return run


@dataclass
class Adapted:
    """A checkpoint of adapters, with what it was made of."""

    base: Path
    folder: Path
    gpt: GPT
    """The network with its adapters apart"""


def save_adapted(
    root: Path, *, sharded: bool = False, whole: tuple[str, ...] = (), **settings: Any
) -> Adapted:
    """Write root/base/step-00000002 and root/lora/step-00000004, whose adapters do something."""
    sizes = {"vocab_size": 11, "max_seq_len": 7, "n_layer": 2, "d_model": 12, "n_head": 2}
    lora = Lora(rank=3, alpha=6.0, targets=("q_proj", "down_proj"), whole=whole)
    config = GPTConfig(**{**sizes, "d_ff": 5, "pad_vocab_to": 4, **settings})
    torch.manual_seed(3)
    gpt = GPT(config).eval()
    meta = {"model": gpt_to_plain(config), "step": 2, "config": {"model": {"lora": None}}}
    base, folder = root / "base/step-00000002", root / "lora/step-00000004"
    write_folder(base, lambda inner: write_bundle(inner, meta, gpt.state_dict(), None))
    add_adapters(gpt, lora)
    init_adapters(gpt, 0)
    for name, parameter in gpt.named_parameters():
        if parameter.requires_grad and not name.endswith("lora_A"):
            parameter.data.normal_(std=0.5)
    adapted = {"lora": asdict(lora), "base": describe_base(base)}
    config_of_run = {"model": {"lora": asdict(lora), "init_from": "base"}}
    bundle = {**meta, "step": 4, "config": config_of_run, **adapted}
    checkpoint = {
        "state_dict": {f"gpt.{name}": tensor for name, tensor in gpt.state_dict().items()},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3, 12)}}, "param_groups": []}],
        "lit_llm": {"bundle": bundle, "tokenizer": None},
    }
    if sharded:
        save_distributed(checkpoint, folder, OneRank())
    else:
        FolderCheckpointIO().save_checkpoint(checkpoint, folder)
    return Adapted(base, folder, gpt)


@pytest.fixture
def save_lora():
    """Writes a LoRA run's checkpoint below a folder."""
    return save_adapted


@pytest.fixture(params=[False, True], ids=["plain", "sharded"])
def adapted(request, tmp_path) -> Adapted:
    """A LoRA run's checkpoint, of one file and in shards."""
    return save_adapted(tmp_path, sharded=request.param)
