"""Summed cross-entropy, of whole logits or of logits that several devices share."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from lit_llm.data.batch import IGNORE


def cross_entropy_sum(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Cross-entropy of every target that is not IGNORE, summed, in nats.

    Args:
        logits_NV: float32; under tensor parallelism a DTensor that is split by vocabulary
        targets_N: int64 token ids, the same on all devices that share the logits
    """
    if not hasattr(logits_NV, "placements"):  # no DTensor, whose import takes a second
        return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="sum")
    return _of_parts(logits_NV, targets_N)


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
        return ((sum_N.log() - target_N) * (targets_N != IGNORE)).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        probability_NV, targets_N, is_mine_N, column_N = ctx.saved_tensors
        gradient_NV = probability_NV * (targets_N != IGNORE)[:, None]
        # IGNORE is no id of any device, so its row is not touched here
        gradient_NV.scatter_add_(-1, column_N[:, None], -is_mine_N[:, None].float())
        return gradient_NV * gradient, None, None, None
