"""Trains small networks on several processes, for the tests beside this file.

    torchrun --standalone --nproc-per-node 2 tests/training/ranks.py RESULTS.pt CASE...

Every process runs every case; the first one writes what came out. A case is also a function to
call: `train("single")` is what all others have to equal.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from lit_llm.checkpoint.bundle import write_bundle
from lit_llm.checkpoint.folder import write_folder
from lit_llm.checkpoint.plain import gpt_to_plain
from lit_llm.data.batch import IGNORE, Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.lora import Lora
from lit_llm.model.size import skeleton
from lit_llm.optim import Muon
from lit_llm.training.guards import Judged, Opinion
from lit_llm.training.module import LitLLM
from lit_llm.training.parallel import build, copy_full
from lit_llm.training.strategy import Sharded

T, V, ROWS = 8, 50, 8
SIZES: dict[str, Any] = {"vocab_size": V, "max_seq_len": T, "n_layer": 2, "d_model": 24}
SIZES |= {"n_head": 6, "n_kv_head": 2, "d_ff": 20, "qk_norm": True}


class SquaredReLU(nn.Module):
    """A part as a user would write it."""

    tensor_parallel = {"up_proj": "columns", "down_proj": "rows"}

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.ff_dim, bias=False)
        self.down_proj = nn.Linear(config.ff_dim, config.d_model, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.up_proj(x_BTD).relu().square())


MESHES: dict[str, Any] = {
    "single": lambda **_: "auto",
    "ddp": lambda **_: "ddp",
    "fsdp": lambda **options: Sharded(**options),
    "tp": lambda **options: Sharded(tensor_parallel="auto", **options),
    "2d": lambda **options: Sharded(tensor_parallel=2, **options),
    "hsdp": lambda **options: Sharded(replicate=2, **options),
    "3d": lambda **options: Sharded(replicate=2, tensor_parallel=2, **options),
}


def sgd(groups: list[dict]) -> torch.optim.Optimizer:
    """A rate of 1: what the weights lose in a step is the gradient."""
    return torch.optim.SGD(groups, lr=1.0)


def adamw(groups: list[dict]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-2, fused=True)


def muon(groups: list[dict]) -> torch.optim.Optimizer:
    return Muon(groups, lr=1e-2)


VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "clip": {"clip": 0.05},
    "clip-value": {"clip": 0.001, "algorithm": "value"},
    "tied": {"gpt": {"tie_embeddings": True, "qk_norm": False}},
    "chunks": {"chunk_tokens": 3},
    "checkpointing": {"activation_checkpointing": 2},
    "compiled": {"compile": True},
    "compiled-checkpointing": {"compile": True, "activation_checkpointing": 1},
    "adamw": {"optimizer": adamw, "steps": 4},
    "muon": {"optimizer": muon, "steps": 3},
    "adamw-skip": {"optimizer": adamw, "steps": 3, "guards": True},
    "muon-skip": {"optimizer": muon, "steps": 3, "guards": True},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "bf16-true": {"precision": "bf16-true"},
    "bf16-params": {"strategy": {"param_dtype": "bfloat16"}},
    "each": {"strategy": {"reduce_each_micro_batch": True}},
    "own-part": {"gpt": {"mlp": SquaredReLU}},
    "lora": {"optimizer": adamw, "steps": 4, "lora": Lora(rank=3, targets="all")},
    "lora-clip": {"clip": 0.01, "lora": Lora(rank=3, targets="all")},
    "lora-tied": {
        "optimizer": adamw,
        "steps": 3,
        "lora": Lora(rank=1, targets=("o_proj", "down_proj"), whole=("embed", "lm_head")),
        "gpt": {"tie_embeddings": True, "qkv_bias": True},
    },
    "lora-muon": {"optimizer": muon, "steps": 3, "lora": Lora(rank=3)},
    "lora-checkpointing": {"activation_checkpointing": 1, "lora": Lora(rank=3)},
    "lora-compiled": {"compile": True, "lora": Lora(rank=3, targets="all")},
    "lora-bf16-mixed": {
        "precision": "bf16-mixed",
        "lora": Lora(rank=3, targets="all", base_dtype="bfloat16"),
    },
}


def rows(step: int) -> list[Batch]:
    """The rows of a global batch; their numbers of valid labels are very different."""
    generator = torch.Generator().manual_seed(step)
    valid = [1, 8, 0, 3, 8, 7, 0, 2]
    found = []
    for count in valid:
        tokens_T = torch.randint(V, (T,), generator=generator)
        labels_T = torch.randint(V, (T,), generator=generator)
        labels_T[count:] = IGNORE
        found.append(Batch(tokens_T, labels_T, torch.zeros(T, dtype=torch.long), torch.arange(T)))
    return found


def stack(batches: list[Batch]) -> Batch:
    return Batch(*(torch.stack(tensors) for tensors in zip(*batches, strict=True)))


class Data(L.LightningDataModule):
    """Stands in for TextData: each rank takes its rows of a global batch, in two micro-batches."""

    tokenizer = None
    token_bytes_V = torch.ones(V, dtype=torch.int32)
    nominal_tokens_per_step = ROWS * T

    def __init__(self, accumulate: int) -> None:
        super().__init__()
        self.accumulate = accumulate

    @property
    def dp_size(self) -> int:
        return self._place().get("num_replicas", 1)

    @property
    def dp_rank(self) -> int:
        return self._place().get("rank", 0)

    def _place(self) -> dict[str, int]:
        return getattr(self.trainer.strategy, "distributed_sampler_kwargs", {})

    def train_dataloader(self) -> DataLoader:
        size, rank, micro = self.dp_size, self.dp_rank, self.accumulate
        batches = []
        for step in range(8):
            at_once = ROWS // (size * micro)
            for part in range(micro):
                first = (part * size + rank) * at_once
                batches.append(stack(rows(step)[first : first + at_once]))
        return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


class Watch(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.barriers = 0

    def on_train_start(self, trainer, pl_module):
        self.before = whole(dict(pl_module.gpt.named_parameters()))
        self.own = sum(
            (p.to_local() if isinstance(p, DTensor) else p).numel() for p in pl_module.parameters()
        )

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.barrier, dist.barrier = dist.barrier, self.count_barrier

    def count_barrier(self, *args, **kwargs):
        self.barriers += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        dist.barrier = self.barrier
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            metrics = pl_module.train_meter.compute(pl_module._dp_sum)
            self.losses.append(float(metrics["train/loss"]))
            self.grad_norms.append(float(metrics["train/grad_norm"]))
        if trainer.global_step == trainer.max_steps:  # the module frees them next
            gradients = {n: p.grad for n, p in pl_module.gpt.named_parameters()}
            self.gradient = whole({n: g for n, g in gradients.items() if g is not None})

    def on_train_end(self, trainer, pl_module):
        self.after = whole(dict(pl_module.gpt.named_parameters()))


class SkipSecond:
    """A guard that leaves out step 2, on the device."""

    def judge(self, step: int, numbers: torch.Tensor) -> Opinion:
        return Opinion(torch.tensor(step == 2), numbers[0])

    def learn(self, judged: Judged) -> None:
        pass


class CountReductions(TorchDispatchMode):
    """How often FSDP2 reduces gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "reduce_scatter" in str(func)
        return func(*args, **(kwargs or {}))


def whole(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors that may be spread over ranks; every rank has to ask."""
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
        for name, tensor in tensors.items()
    }


def _base(folder: Path, config: GPTConfig) -> str:
    """A checkpoint to adapt; each process makes one for itself, of the same weights."""
    gpt = GPT(config)
    init_weights(gpt, 5, config.n_layer)
    meta = {"model": gpt_to_plain(config)}
    write_folder(folder / "base", lambda to: write_bundle(to, meta, gpt.state_dict(), None))
    return str(folder / "base")


def train(case: str, accumulate: int = 2) -> dict[str, Any]:
    """Run a case such as "fsdp", "tp+clip" or "single+adamw"."""
    mesh, _, variant = case.partition("+")
    settings = {"optimizer": sgd, "steps": 1, "precision": "32-true", **VARIANTS[variant]}
    options = settings.get("strategy", {}) if mesh not in ("single", "ddp") else {}
    config = GPTConfig(**SIZES | settings.get("gpt", {}))
    watch = Watch()
    counters.clear()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
            strategy=MESHES[mesh](**options),
            precision=settings["precision"],
            max_epochs=-1,
            max_steps=settings["steps"],
            gradient_clip_val=settings.get("clip"),
            gradient_clip_algorithm=settings.get("algorithm"),
            default_root_dir=folder,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )
        module = LitLLM(
            config,
            optimizer=settings["optimizer"],
            compile=settings.get("compile", False),
            activation_checkpointing=settings.get("activation_checkpointing", 0),
            init_from=_base(Path(folder), config) if "lora" in settings else None,
            lora=settings.get("lora"),
        )
        if settings.get("guards"):
            module.guards.add(SkipSecond())
        module.objective.chunk_tokens = settings.get("chunk_tokens", 8192)
        # Nothing is compiled while such a mode looks on.
        reductions = CountReductions()
        with nullcontext() if module.compile_blocks else reductions:
            trainer.fit(module, Data(accumulate))
    return {
        "losses": watch.losses,
        "grad_norms": watch.grad_norms,
        "before": watch.before,
        "after": watch.after,
        "gradient": watch.gradient,  # of the last step, after clipping
        "own": watch.own,
        "reductions": reductions.count,
        "barriers": watch.barriers,
        "graphs": counters["stats"]["unique_graphs"],
    }


def build_large() -> dict[str, int]:
    """Bytes that this process needed, at most, to build a network and give it its weights."""
    config = GPTConfig(vocab_size=64, max_seq_len=8, n_layer=16, d_model=512, n_head=4)
    sizes = [p.numel() * 4 for p in skeleton(config).parameters()]
    strategy = Sharded()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        strategy=strategy,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.strategy.setup_environment()
    before = getrusage(RUSAGE_SELF).ru_maxrss
    gpt = build(config, strategy.sharding)
    init_weights(gpt, 0, config.n_layer, copy_full)
    grown = (getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"grown": grown, "whole": sum(sizes), "largest": max(sizes)}


def main(results: str, *cases: str) -> None:
    found = {}
    for case in cases:
        name, _, accumulate = case.partition("@")
        found[case] = build_large() if name == "build" else train(name, int(accumulate or 2))
    if os.environ["RANK"] == "0":
        torch.save(found, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
