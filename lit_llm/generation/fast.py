"""A copy of a model that only generates, faster: packed or int8 weights, a compiled decoding step.

    gpt = fast_copy(gpt, Decoding(compile=True, weights="int8"))
    generate(gpt, prompts, sampling)

It is a GPT like any other, for all that generates: the same blocks in the same order, whatever
attention they have. Only their linear layers are replaced. A token of each of some rows runs
through `step.cpp` where that knows the network, else one row's through blocks that TorchInductor
compiles, once for all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lit_llm.generation import native
from lit_llm.generation.linear import FastLinear, Int8Linear
from lit_llm.model.cache import KVCache, LayerCache
from lit_llm.model.gpt import GPT, Block, Head, Result
from lit_llm.model.layout import Layout
from lit_llm.model.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a model computes while it generates. The default is as it was trained."""

    weights: Literal["saved", "packed", "int8"] = "saved"
    """packed: a second copy, in the order that a CPU reads fastest, for long prompts and batches;
    int8: rounded to 8 bits, for one prompt at a time, with compile: true."""

    compile: bool = False
    """Compile what makes one token of one prompt: needs a C++ compiler and seconds, once."""

    def __post_init__(self) -> None:
        """Refuse what would only be slower."""
        if self.weights == "int8" and not self.compile:
            raise ValueError(
                "decoding.weights=int8 pays only when it is compiled: add --decoding.compile true"
            )


def fast_copy(gpt: GPT, decoding: Decoding) -> GPT:
    """A model that answers as `gpt` does, faster; the weights that it does not change are shared.

    Raises:
        ValueError: int8 for weights that another class than `nn.Linear` holds, or with a bias.
    """
    tensors = {id(tensor): tensor for tensor in (*gpt.parameters(), *gpt.buffers())}
    fast = copy.deepcopy(gpt, tensors).eval()
    if decoding == Decoding():
        return fast
    for module in list(fast.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child.bias is None:
                setattr(module, name, _replaced(child, decoding))
    if not decoding.compile:
        return fast
    if type(fast) in (GPT, _NativeGPT) and native.is_known(fast) and native.library() is not None:
        # the copy is ours alone, and all that was a GPT in it remains
        fast.__class__ = _NativeGPT
        cast(_NativeGPT, fast).find_weights()
    else:
        compiled = _Compiled()
        fast.blocks = nn.ModuleList(_Block(block, compiled) for block in fast.blocks)
        fast.register_module("lm_head", _Head(fast.lm_head, compiled))
    return fast


def _replaced(linear: nn.Linear, decoding: Decoding) -> nn.Module:
    if decoding.weights == "int8":
        return Int8Linear(linear)
    return FastLinear(linear, packed=decoding.weights == "packed")


class _NativeGPT(GPT):
    """A GPT; single tokens run through `step.cpp`."""

    step: native.NativeStep | None

    def forward(
        self,
        tokens_BT: Tensor,
        layout: Layout | None = None,
        cache: KVCache | None = None,
        head: Head[Result] | None = None,
        only_B: Tensor | None = None,
    ) -> Tensor | Result:
        if (
            tokens_BT.size(1) > 1
            or layout is None
            or layout.mask_B1TS is None
            or cache is None
            or head is not None
            or self.training
            or self.step is None
            or not self.step.fits(cache)
            or len(tokens_BT) != len(cache.layers[0].k_BKSE)
        ):
            return super().forward(tokens_BT, layout, cache, head, only_B)
        x_BD = self.embed(tokens_BT)[:, 0]
        return self.step(x_BD, layout.positions_BT[:, 0], cache)[:, None]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _NativeGPT:
        super()._apply(fn, recurse)
        self.find_weights()
        return self

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        result = super().load_state_dict(*args, **options)
        self.find_weights()  # with assign=True they are others
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "step": None}  # addresses mean nothing to a copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.find_weights()

    def find_weights(self) -> None:
        """Look where the weights lie, and of which dtype they are."""
        known = native.is_known(self) and native.library() is not None
        self.step = native.NativeStep(self) if known else None


class _Compiled:
    """Functions of one copy of a model, compiled when they are first called."""

    def __init__(self) -> None:
        self.block = torch.compile(_run_block)
        self.head = torch.compile(_run_head)


def _run_block(
    block: nn.Module, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache
) -> Tensor:
    out: Tensor = block(x_BTD, rope, layout, cache)
    return out


def _run_head(head: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = head(x)
    return out


class _Block(nn.Module):
    """A block; one row at a time runs compiled."""

    def __init__(self, block: nn.Module, compiled: _Compiled) -> None:
        super().__init__()
        self.block = block
        self.compiled = compiled

    def forward(
        self, x_BTD: Tensor, rope: Rope, layout: Layout, cache: LayerCache | None = None
    ) -> Tensor:
        if cache is None or layout.mask_B1TS is None or x_BTD.shape[:2] != (1, 1):
            out: Tensor = self.block(x_BTD, rope, layout, cache)
            return out
        return self.compiled.block(self.block, x_BTD, rope, layout, cache)

    def remember(self, *args: Any) -> bool:
        return cast(Block, self.block).remember(*args)


class _Head(nn.Module):
    """The output projection; one row at a time runs compiled."""

    def __init__(self, head: nn.Module, compiled: _Compiled) -> None:
        super().__init__()
        self.head = head
        self.compiled = compiled

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() == x.size(-1):
            # of one shape, or after the prompt, of another rank, it would be compiled again
            return self.compiled.head(self.head, x.reshape(1, -1)).reshape(*x.shape[:-1], -1)
        out: Tensor = self.head(x)
        return out


def compile_now(fast: GPT) -> float:
    """Compile a fast copy before its first prompt, for every length of prompt and answer.

    Returns:
        The seconds that it took; about one where an earlier process has left its results.

    Raises:
        ValueError: there is no working C++ compiler.
    """
    before = perf_counter()
    slots = min(8, fast.config.max_seq_len)
    cache = KVCache(fast.config, 1, slots, device=fast.device, dtype=fast.embed.weight.dtype)
    for layer in cache.layers:  # so that another number of slots needs no second compilation
        torch._dynamo.maybe_mark_dynamic(layer.k_BKSE, 2)
        torch._dynamo.maybe_mark_dynamic(layer.v_BKSE, 2)
    positions_BT = torch.zeros(1, 1, dtype=torch.int64, device=fast.device)
    try:
        with torch.inference_mode():
            layout = Layout.cached(positions_BT, slots)
            torch._dynamo.maybe_mark_dynamic(layout.mask_B1TS, 3)
            fast(positions_BT, layout, cache)
    except Exception as error:
        if _lacks_compiler(error):
            raise ValueError(
                "decoding.compile needs a C++ compiler, and none works here: install g++ "
                "(apt install g++),\nname another one in CXX, or leave out --decoding.compile"
            ) from error
        raise
    return perf_counter() - before


def _lacks_compiler(error: BaseException | None) -> bool:
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    kinds: tuple[Any, ...] = (InvalidCxxCompiler, CppCompileError)
    while error is not None:
        inner = getattr(error, "inner_exception", None)
        if isinstance(error, kinds) or isinstance(inner, kinds):
            return True
        error = error.__cause__
    return False
