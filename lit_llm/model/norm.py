"""RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divide each vector by its root mean square, then scale each channel.

    Computed in float32, cast back, then scaled: the order of Hugging Face's Llama, which decides
    the last bits in bfloat16.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin without scaling."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self.weight.shape, eps=self.eps)
        return normed.type_as(x) * self.weight
