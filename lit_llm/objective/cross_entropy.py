"""Summed cross-entropy, of whole logits or of logits that several devices share."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from lit_llm.data.batch import IGNORE
from lit_llm.objective.native_cross_entropy import NativeCrossEntropy, can_compute

# Logits that are looked at together: on a CPU they stay in its cache on their way to a gradient.
AT_ONCE, AT_ONCE_ON_CPU = 2**28, 2**20
MOST_PIECES = 16  # of a call: a plan runs through all of them


def cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor, vocab_size: int) -> Tensor:
    """Cross-entropy of every target that is not IGNORE, summed, in nats.

    Whatever the logits' dtype, it is computed in float32, of a few rows at a time. Where gradients
    are wanted, the logits are used up: their own gradient is written over them, so that nothing
    else of their size ever exists. 1024 rows of 50,304 are 103 MB in bfloat16.

    Args:
        logits_NV: the projection's own output, which nobody else needs; columns from `vocab_size`
            on only pad it; under tensor parallelism a float32 DTensor that is split by vocabulary
        targets_N: int64 token ids, the same on all devices that share the logits
        vocab_size: token ids that exist
    """
    if hasattr(logits_NV, "placements"):  # a DTensor, whose import takes a second
        return _of_parts(logits_NV, targets_N)
    kind = NativeCrossEntropy if can_compute(logits_NV) else _CrossEntropy
    return kind.apply(logits_NV, targets_N, vocab_size)


class _CrossEntropy(torch.autograd.Function):
    """The gradient of the logits, softmax - one_hot, falls off on the way to the loss."""

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, targets_N: Tensor, vocab_size: int) -> Tensor:
        loss = torch.zeros((), dtype=torch.float32, device=logits_NV.device)
        valid_N = targets_N != IGNORE
        # IGNORE alone becomes an id: any other that does not exist is an error of gather.
        column_N1 = targets_N.where(valid_N, 0)[:, None]
        at_once = AT_ONCE_ON_CPU if logits_NV.device.type == "cpu" else AT_ONCE
        rows = max(1, at_once // logits_NV.size(1), len(logits_NV) // MOST_PIECES)
        pieces = (tensor.split(rows) for tensor in (logits_NV, column_N1, valid_N))
        for some_NV, some_column_N1, some_valid_N in zip(*pieces, strict=True):
            found_NV = some_NV[:, :vocab_size].log_softmax(dim=-1, dtype=torch.float32)
            target_N = found_NV.gather(-1, some_column_N1).squeeze(-1)
            loss -= target_N.where(some_valid_N, 0.0).sum()  # not times 0: NaN stays NaN
            if ctx.needs_input_grad[0]:
                gradient_NV = found_NV.exp_()
                minus_one_N1 = target_N.new_full((1, 1), -1.0).expand_as(some_column_N1)
                gradient_NV.scatter_add_(-1, some_column_N1, minus_one_N1)
                some_NV[:, :vocab_size] = gradient_NV
                some_NV[:, vocab_size:] = 0.0
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(logits_NV, valid_N)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient_NV, valid_N = ctx.saved_tensors
        # On a CPU a number is six times as fast as a column; a GPU would round it to bfloat16.
        factor = gradient if gradient_NV.is_cpu else gradient[None, None]
        gradient_NV.mul_(factor).masked_fill_(~valid_N[:, None], 0.0)
        return gradient_NV, None, None


def _of_parts(logits_NV: Any, targets_N: Tensor) -> Tensor:
    mesh = logits_NV.device_mesh
    assert all(placement.is_shard(1) for placement in logits_NV.placements)
    first_id = mesh.get_local_rank() * (logits_NV.size(1) // mesh.size())
    return _VocabularyParallel.apply(logits_NV.to_local(), targets_N, first_id, mesh.get_group())


class _VocabularyParallel(torch.autograd.Function):
    """Each device holds the logits of a range of ids (Shoeybi et al., 2019, arXiv:1909.08053).

    Three numbers per token are exchanged, and never the logits: their maximum, the sum of their
    exponentials and the logit of the target.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, targets_N: Tensor, first_id: int, group: dist.ProcessGroup
    ) -> Tensor:
        max_N = logits_NV.amax(dim=-1)
        dist.all_reduce(max_N, op=dist.ReduceOp.MAX, group=group)
        shifted_NV = logits_NV - max_N[:, None]

        rows = logits_NV.size(-1)
        is_mine_N = (targets_N >= first_id) & (targets_N < first_id + rows)
        column_N = (targets_N - first_id).clamp(0, rows - 1)
        target_N = shifted_NV.gather(-1, column_N[:, None]).squeeze(-1).where(is_mine_N, 0.0)

        exp_NV = shifted_NV.exp_()
        sums_2N = torch.stack((exp_NV.sum(dim=-1), target_N))
        dist.all_reduce(sums_2N, group=group)
        sum_N, target_N = sums_2N

        ctx.save_for_backward(exp_NV.div_(sum_N[:, None]), targets_N, is_mine_N, column_N)
        return (sum_N.log() - target_N).where(targets_N != IGNORE, 0.0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        probability_NV, targets_N, is_mine_N, column_N = ctx.saved_tensors
        gradient_NV = probability_NV.where((targets_N != IGNORE)[:, None], 0.0)
        # IGNORE is no id of any device, so its row is not touched here
        gradient_NV.scatter_add_(-1, column_N[:, None], -is_mine_N[:, None].float())
        return gradient_NV * gradient, None, None, None
