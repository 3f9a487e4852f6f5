"""One token of one prompt by `step.cpp`: the whole network in one call, on a CPU.

It knows the network that `GPT` is without replaced parts, the one that exports to Llama and Qwen3,
in float32 and bfloat16, and with `Int8Linear`. TorchInductor knows all others (`fast.py`), but pays
for each operator and compiles for half a minute; this takes seconds.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_llm.generation.linear import FastLinear, Int8Linear
from lit_llm.model.attention import GroupedQueryAttention
from lit_llm.model.cache import KVCache
from lit_llm.model.gpt import GPT, Block
from lit_llm.model.mlp import SwiGLU
from lit_llm.model.norm import RMSNorm

SOURCE = Path(__file__).with_name("step.cpp")
FLAGS = (
    "-std=c++17 -O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp -shared -fPIC".split()
)
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class NativeStep:
    """Appends one token to a cache of one row.

    It reads the weights of `gpt` where they lie, and keeps float32 copies of its norms.

    Args:
        gpt: for which `is_known` holds
    """

    def __init__(self, gpt: GPT) -> None:
        config = gpt.config
        self._tensors: list[Tensor] = []  # what the addresses below point to
        layers = [address for block in gpt.blocks for address in self._layer(block)]
        self._layers = _addresses(layers)
        self._head = _addresses([self._norm(gpt.norm), *self._matrix(gpt.lm_head)])
        self._sizes = _Sizes(
            n_layer=config.n_layer,
            d_model=config.d_model,
            n_head=config.n_head,
            kv_heads=config.kv_heads,
            head_dim=config.channels_per_head,
            ff_dim=config.ff_dim,
            vocab_size=config.vocab_size,
            eps=config.norm_eps,
        )
        self._rope = gpt.cos_SE, gpt.sin_SE
        self._dtype = gpt.embed.weight.dtype
        name = NAMES[self._dtype]
        name = f"int8_{name}" if isinstance(gpt.lm_head, Int8Linear) else name
        self._step = getattr(library(), f"step_{name}")
        self._step.restype = None

    def fits(self, cache: KVCache) -> bool:
        """Whether it can read and write this cache."""
        k_BKSE = cache.layers[0].k_BKSE
        return k_BKSE.dtype == self._dtype and k_BKSE.size(0) == 1 and k_BKSE.is_contiguous()

    def __call__(self, x_D: Tensor, position: int, cache: KVCache) -> Tensor:
        """The float32 logits (V,) after a token.

        Args:
            x_D: its embedding
            position: its place, 0 to slots - 1
            cache: that fits; takes the token's keys and values

        Raises:
            IndexError: the cache has no such slot.
        """
        if not 0 <= position < cache.slots:  # it would be written all the same, elsewhere
            raise IndexError(f"position {position} is outside the cache of {cache.slots} slots")
        caches = _addresses(
            [kv.data_ptr() for layer in cache.layers for kv in (layer.k_BKSE, layer.v_BKSE)]
        )
        self._sizes.slots, self._sizes.threads = cache.slots, torch.get_num_threads()
        x_D = x_D.to(torch.float32, copy=True)
        logits_V = torch.empty(self._sizes.vocab_size)
        cos_E, sin_E = (table_SE[position] for table_SE in self._rope)
        self._step(
            ctypes.byref(self._sizes),
            self._layers,
            self._head,
            caches,
            ctypes.c_void_p(cos_E.data_ptr()),
            ctypes.c_void_p(sin_E.data_ptr()),
            ctypes.c_int64(position),
            ctypes.c_void_p(x_D.data_ptr()),
            ctypes.c_void_p(logits_V.data_ptr()),
        )
        return logits_V

    def _layer(self, block: Any) -> list[int | None]:
        """In the order of `Layer` in step.cpp."""
        attn, mlp = block.attn, block.mlp
        norms = [
            self._norm(norm) for norm in (block.norm_1, block.norm_2, attn.q_norm, attn.k_norm)
        ]
        matrices = [attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj]
        matrices += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        return [*norms, *(address for matrix in matrices for address in self._matrix(matrix))]

    def _norm(self, norm: RMSNorm | None) -> int | None:
        return None if norm is None else self._address(norm.weight.detach().float())

    def _matrix(self, linear: Any) -> tuple[int, int | None]:
        scale = self._address(linear.scale) if isinstance(linear, Int8Linear) else None
        return self._address(linear.weight.detach()), scale

    def _address(self, tensor: Tensor) -> int:
        self._tensors.append(tensor.contiguous())
        return self._tensors[-1].data_ptr()


class _Sizes(ctypes.Structure):
    """`Sizes` in step.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("n_layer", "d_model", "n_head", "kv_heads", "head_dim", "ff_dim")
        ),
        *((name, ctypes.c_int64) for name in ("vocab_size", "slots", "threads")),
        ("eps", ctypes.c_double),
    ]


def _addresses(values: list[Any]) -> Any:
    return (ctypes.c_void_p * len(values))(*values)


def is_known(gpt: GPT) -> bool:
    """Whether step.cpp computes what this model does: no part is replaced, and it is on a CPU."""
    return (
        gpt.device.type == "cpu"
        and gpt.embed.weight.dtype in NAMES
        and _are_linear([gpt.lm_head])
        and type(gpt.norm) is RMSNorm
        and all(type(block) is Block and _is_known(block) for block in gpt.blocks)
    )


def _is_known(block: Any) -> bool:
    attn, mlp = block.attn, block.mlp
    if type(attn) is not GroupedQueryAttention or type(mlp) is not SwiGLU:
        return False
    norms = [block.norm_1, block.norm_2, attn.q_norm, attn.k_norm]
    matrices = [attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj]
    matrices += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return all(norm is None or type(norm) is RMSNorm for norm in norms) and _are_linear(matrices)


def _are_linear(modules: Sequence[nn.Module]) -> bool:
    return all(type(module) in (FastLinear, Int8Linear) for module in modules)


@cache
def library() -> ctypes.CDLL | None:
    """`step.cpp`, compiled; None where no compiler makes a library of it.

    Its file lies beside TorchInductor's, and is named after all that it depends on.
    """
    compiler = os.environ.get("CXX", "g++")
    described = "\n".join([SOURCE.read_text(encoding="utf-8"), compiler, *FLAGS, _processor()])
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    path = Path(cache_folder(), f"lit_llm_step_{digest}.so")
    try:
        if not path.exists():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError):
        return None


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True)
        made.replace(path)  # whole or not at all, also where two processes compile


def _processor() -> str:
    """What -march=native depends on: a folder may be shared by machines."""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(
            sorted({line for line in lines if line.startswith(("model name", "flags"))})
        )
    return platform.processor()


def cache_folder() -> str:
    """Where what is compiled is kept; TORCHINDUCTOR_CACHE_DIR chooses another place."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder: str = cache_dir()
    return folder
