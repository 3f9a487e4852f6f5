"""Whose time a step was: the operators of a profile, sorted into the parts of training.

An operator counts where it is called: inside a module that `parts` has marked, in the backward
pass the module of the operator that is being undone (PyTorch numbers them), and inside the
optimizer. Matrix products, attention proper and casts count as such, wherever they are called.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer
from torch.profiler import record_function

from lit_llm.model.gpt import GPT
from lit_llm.model.norm import RMSNorm

MARK = "part: "
STEP = "ProfilerStep"
BETWEEN = "between operators"
IDLE = "device waits"
REST = "rest"

# Part -> what the names of its operators begin with, after "aten::" (mkldnn:: on a CPU's own
# library). Nearest first: a cast inside of a matrix product is a cast.
OPERATORS = {
    "casts": ("_to_copy",),
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "_grouped_mm"),
    "attention": ("scaled_dot_product", "_scaled_dot_product", "_flash_att", "_efficient_att"),
    "clipping": ("_foreach", "linalg_vector_norm", "_fused_clip"),
    "loss": ("_log_softmax", "nll_loss", "cross_entropy", "logsumexp"),
}
VARLEN = "torch_attn::"  # torch.nn.attention.varlen
ATTENTION = "Attention"  # in the name of a function of autograd: its products are attention's
OPTIMIZER = "Optimizer.step"
COMPILED = ("triton_", "## Call CompiledFxGraph", "CompiledFunction", "Torch-Compiled Region")
ENGINE = "autograd::engine::evaluate_function"


class Share(NamedTuple):
    """Time of a part or an operator."""

    name: str
    seconds: float
    calls: int


@contextmanager
def parts(gpt: GPT, optimizer: Optimizer, *, inside_blocks: bool = True) -> Iterator[None]:
    """Mark what a training step does, for the profiler, as long as the context lasts.

    Args:
        gpt: the network
        optimizer: what Lightning runs the forward and backward pass in, as its closure
        inside_blocks: also what blocks are made of; not for compiled ones, which hooks would
            compile anew
    """
    marked: dict[nn.Module, str] = {gpt: "loss", gpt.embed: "embedding", gpt.norm: "norms"}
    for block in gpt.blocks:
        marked[block] = "residual, dropout"
        if inside_blocks:
            marked |= {block.attn: "RoPE, heads", block.mlp: "MLP activation"}  # type: ignore[dict-item]
            marked |= {m: "norms" for m in block.modules() if isinstance(m, RMSNorm)}
    handles = [handle for module, part in marked.items() for handle in _mark(module, part)]
    handles.append(optimizer.register_step_pre_hook(_mark_closure))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mark(module: nn.Module, part: str) -> list[Any]:
    entered: list[record_function] = []

    def begin(*_: Any) -> None:
        entered.append(record_function(MARK + part))
        entered[-1].__enter__()

    def end(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(begin),
        module.register_forward_hook(end, always_call=True),
    ]


def _mark_closure(optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Tell what an optimizer's `step` calls from what it does itself."""
    closure = kwargs.get("closure")
    if closure is None:
        return None

    def marked() -> Any:
        with record_function(MARK + REST):
            return closure()

    return args, {**kwargs, "closure": marked}


def shares(events: Sequence[Any], *, on_device: bool) -> tuple[list[Share], list[Share]]:
    """Sort a profile.

    Args:
        events: of a `torch.profiler.profile`
        on_device: count the time of the accelerator's kernels instead of the processor's

    Returns:
        Parts and operators, each with the longest first. The parts add up to the time of the
        steps: what no operator takes is Python's, or on an accelerator, time in which it waits.
    """
    called = [event for event in events if event.device_type.name == "CPU"]
    forward = _forward_parts(called)
    by_part: dict[str, float] = defaultdict(float)
    by_name: dict[str, list[float]] = defaultdict(list)
    whole = 0.0
    for event in called:
        if event.name.startswith(STEP):
            whole += event.time_range.elapsed_us()
        microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
        if on_device and not microseconds:
            continue
        by_part[_part(event, forward)] += microseconds
        if not event.name.startswith((STEP, ENGINE, MARK)):
            by_name[event.name].append(microseconds)
    if on_device:
        by_part[IDLE] = max(0.0, whole - sum(by_part.values()))
    counted = [Share(name, 1e-6 * time, 0) for name, time in by_part.items()]
    operators = [Share(name, 1e-6 * sum(times), len(times)) for name, times in by_name.items()]
    return _longest_first(counted), _longest_first(operators)


def _longest_first(found: list[Share]) -> list[Share]:
    return sorted(found, key=lambda share: -share.seconds)


def _forward_parts(events: Sequence[Any]) -> dict[int, str]:
    """Part of the operator that made each node of autograd's graph, by the node's number.

    Operators that make no node carry the number of the next one, so the last one made it.
    """
    found: dict[int, str] = {}
    for event in sorted(events, key=lambda event: event.time_range.start):
        undoes = any(above.name.startswith(ENGINE) for above in _upwards(event))
        if event.sequence_nr >= 0 and not undoes:
            found[event.sequence_nr] = _part(event, found)
    return found


def _part(event: Any, forward: dict[int, str]) -> str:
    if event.name.startswith((STEP, ENGINE, MARK)):
        return BETWEEN
    kind = None
    for above in _upwards(event):
        if above.name.startswith(OPTIMIZER):
            return "optimizer"
        if ATTENTION in above.name:
            kind = "attention"
        if above.name.startswith(MARK):
            return kind or above.name.removeprefix(MARK)
        if above.name.startswith(ENGINE):
            return kind or forward.get(above.sequence_nr, REST)
        kind = kind or _kind(above.name)
    return kind or REST


def _kind(name: str) -> str | None:
    """What an operator is, wherever it is called."""
    if name.startswith(VARLEN):
        return "attention"
    if name.startswith(COMPILED):
        return "fused by torch.compile"
    bare = name.partition("::")[2]
    for kind, beginnings in OPERATORS.items():
        if bare.startswith(beginnings):
            return kind
    return None


def _upwards(event: Any) -> Iterator[Any]:
    """An event, the one that called it, and so on."""
    while event is not None:
        yield event
        event = event.cpu_parent
