"""What of a step lies on each device, when several work on it.

One device's step is measured (see `lit_llm.planning.trace`), what strategies do with it is
arithmetic. With n parameters of b bytes, S devices that shard, R copies, P devices that split each
matrix, and a device's own part of the activations A:

    one device    n b + gradients n b + state + A
    DDP           the same, and a bucket for each gradient: n b more (PyTorch's documentation of
                  DistributedDataParallel, gradient_as_bucket_view, which Lightning leaves off)
    FSDP2         (n b + gradients n b + state) / S + gathered + A. Gathered at once are the block
                  in use, the next one, and what belongs to no block (embedding, final norm, head):
                  Zhao et al., 2023, arXiv:2304.11277. HSDP is the same, S being a copy's devices.
      accumulating gradients stay whole until the step's last micro-batch, in the type that they
                  are reduced in, unless reduce_each_micro_batch is set: n b instead of n b / S
      else        one block's gradients are whole, and once more on their way to the others
    tensor        a network with heads, MLP and vocabulary / P is measured, then its residual
    parallelism   stream is divided by P too; the gathered input of attention and of the MLP in
                  each block, which PyTorch keeps for the backward pass, is not (Korthikanti et
                  al., 2022, arXiv:2205.05198, gather it again)
    autocast      copies of weights in bfloat16 are kept whole from the forward to the backward
                  pass, under FSDP2 too; `param_dtype` instead gathers in bfloat16 and keeps none
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from lit_llm.model.config import GPTConfig
from lit_llm.model.lora import Lora
from lit_llm.model.size import skeleton
from lit_llm.planning.ledger import Bytes, Phases
from lit_llm.planning.trace import STEP, Job
from lit_llm.training.divisible import check_divisible

TWO_INPUTS = 2  # of a block are gathered over the tensor-parallel group: attention's and the MLP's


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A run over replicate x shard x tensor devices."""

    strategy: Literal["single", "ddp", "sharded"] = "single"
    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    reduce_each_micro_batch: bool = False

    @property
    def data_parallel(self) -> int:
        """Devices, or groups of them, that see different data."""
        return self.replicate * self.shard

    @property
    def devices(self) -> int:
        return self.data_parallel * self.tensor


def local_job(job: Job, tensor: int) -> Job:
    """What one device of a tensor-parallel group computes.

    Raises:
        ValueError: a size or setting does not split over the group.
    """
    gpt = job.gpt
    if tensor == 1:
        return job
    check_divisible(gpt, tensor, compile=job.compile, lora=job.lora)
    split = replace(
        gpt,
        n_head=gpt.n_head // tensor,
        n_kv_head=gpt.kv_heads // tensor,
        head_dim=gpt.channels_per_head,
        d_ff=gpt.ff_dim // tensor,
        vocab_size=gpt.padded_vocab_size // tensor,
        pad_vocab_to=1,
    )
    return replace(job, gpt=split)


def per_device(
    phases: Phases, job: Job, spread: Spread, rows: int, *, accumulating: bool
) -> Phases:
    """Memory of one device in each phase.

    Args:
        phases: measured with `local_job`
        job: the whole one
        spread: over which devices
        rows: of a micro-batch
        accumulating: the step has several micro-batches
    """
    local = local_job(job, spread.tensor)
    parts = _parts(local.gpt, local.lora)
    return {
        phase: _one_phase(phase, dict(kinds), local, spread, parts, rows, accumulating)
        for phase, kinds in phases.items()
    }


@dataclass(frozen=True)
class _Parts:
    total: int
    """parameters"""
    block: int
    """of the largest block"""
    root: int
    """that belong to no block"""
    trained: int
    """of the whole network, those that have a gradient"""
    trained_at_once: int
    """of the largest block or of what belongs to none, whichever has more of those"""


@cache
def _parts(config: GPTConfig, lora: Lora | None) -> _Parts:
    few = skeleton(replace(config, n_layer=1), lora)
    inside, all_of_them = list(few.blocks.parameters()), list(few.parameters())
    block, total = (sum(p.numel() for p in some) for some in (inside, all_of_them))
    block_trained, trained = (
        sum(p.numel() for p in some if p.requires_grad) for some in (inside, all_of_them)
    )
    more = config.n_layer - 1
    return _Parts(
        total=total + more * block,
        block=block,
        root=total - block,
        trained=trained + more * block_trained,
        trained_at_once=max(block_trained, trained - block_trained),
    )


def _one_phase(
    phase: str,
    kinds: Bytes,
    job: Job,
    spread: Spread,
    parts: _Parts,
    rows: int,
    accumulating: bool,
) -> Bytes:
    kinds["activations"] += kinds.pop("residual") / spread.tensor
    kept, computing = job.weight_dtype.itemsize, job.computing_bytes
    if spread.tensor > 1 and phase != STEP:
        blocks = 1 if job.activation_checkpointing else job.gpt.n_layer
        whole = TWO_INPUTS * blocks * rows * job.seq_len * job.gpt.d_model * computing
        kinds["activations"] += whole * (1 - 1 / spread.tensor)
    kinds["communication"] = 0.0
    if spread.strategy == "ddp" and spread.devices > 1:
        kinds["communication"] = parts.trained * kept
    if spread.strategy == "sharded" and spread.data_parallel > 1:
        _shard(phase, kinds, job, spread, parts, accumulating)
    return kinds


def _shard(
    phase: str, kinds: Bytes, job: Job, spread: Spread, parts: _Parts, accumulating: bool
) -> None:
    kept = job.weight_dtype.itemsize
    gathering = (job.param_dtype or job.weight_dtype).itemsize
    kinds["weights"] /= spread.shard
    kinds["optimizer"] /= spread.shard
    whole = accumulating and not spread.reduce_each_micro_batch
    if phase == STEP or not whole:
        kinds["gradients"] /= spread.shard
    if phase == STEP:
        return
    kinds["communication"] = (parts.root + 2 * parts.block) * gathering
    if not whole:
        kinds["communication"] += parts.trained_at_once * (gathering + kept)
