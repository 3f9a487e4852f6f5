"""One optimizer step of the real model, objective and optimizer, on tensors without numbers.

PyTorch runs on ghosts as it does on tensors (see `lit_llm.planning.ghosts`), so autocast, fused
attention, checkpointing and a user's own parts do what they would do. No formula about the
network stands here, none can go stale.

What is not seen: memory inside a kernel, the allocator's rounding and fragmentation, and what
torch.compile saves by fusing (a compiled block holds less than is counted here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_llm.data.batch import Batch
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.lora import Lora, add_adapters, cast_frozen
from lit_llm.objective import Objective
from lit_llm.optim.groups import parameter_groups
from lit_llm.planning.ghosts import Ghosts
from lit_llm.planning.ledger import KINDS, Ledger, Phases
from lit_llm.planning.stand_in import no_compiler

SHALLOW = (2, 4)  # depths at which a deeper network is measured; even: blocks may alternate
PER_ROW = ("activations", "residual", "logits")  # kinds that grow with the micro-batch
STEP, FORWARD = "optimizer step", "forward"
LOSS, BLOCKS, EMBEDDING = "backward of the loss", "backward of the blocks", "backward of embeddings"

_TRUE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one device computes."""

    gpt: GPTConfig
    objective: Objective
    optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    groups: Mapping[str, Mapping[str, Any]] | None = None
    seq_len: int
    """tokens of a row"""
    precision: str = "32-true"
    """as the Trainer names it: 32-true, bf16-mixed, bf16-true, ..."""
    param_dtype: torch.dtype | None = None
    """what FSDP2 gathers and computes in, if not in the type of the weights"""
    activation_checkpointing: int = 0
    """every how many blocks only the input is kept; 0: none"""
    lora: Lora | None = None
    """adapters that train in place of the weights"""
    compile: bool = False
    """what it saves is not planned; tensor parallelism refuses it"""
    special: Mapping[str, int] = field(default_factory=dict)
    """ids of control tokens, for the objective"""

    @property
    def weight_dtype(self) -> torch.dtype:
        """Of the weights that the optimizer changes."""
        return _TRUE.get(self.precision, torch.float32)

    @property
    def computing_bytes(self) -> int:
        """Of a number that matrices are multiplied in."""
        dtype = self.param_dtype or _MIXED.get(self.precision, self.weight_dtype)
        return dtype.itemsize

    @property
    def vocab_size(self) -> int:
        return self.gpt.vocab_size


@dataclass
class Trace:
    """Memory of a step by phase, measured once for each micro-batch that is asked for.

    A block adds the same as any other, so a deep network is measured at two depths and follows
    from a line through them, in each phase and kind. What a block adds to the activations is in
    proportion to the rows, so a second micro-batch is measured at one depth only.

    Args:
        job: what is computed
        device: type whose kernels are chosen: `cuda` only where there is one
    """

    job: Job
    device: str = "cpu"
    _step: Phases | None = None
    _known: dict[tuple[int, bool], Phases] = field(default_factory=dict)
    _blocks: dict[bool, tuple[int, Phases]] = field(default_factory=dict)

    def at(self, rows: int, *, accumulating: bool = False) -> Phases:
        """Memory with a micro-batch of so many rows.

        Args:
            rows: of one micro-batch
            accumulating: the step has several, so that gradients outlive each of them
        """
        key = rows, accumulating
        if self._step is None:
            self._step = self._optimizer_step()
        if key not in self._known:
            phases = self._micro_batch(rows, accumulating)
            for kinds in phases.values():
                kinds["optimizer"] = self._step[STEP]["optimizer"]
            self._known[key] = {**phases, **self._step}
        return self._known[key]

    def _optimizer_step(self) -> Phases:
        if not self._is_deep:
            return optimizer_step(self.job, self.device)
        few, more = (optimizer_step(self._shallow(n), self.device) for n in SHALLOW)
        return _add(few, _per_block(few, more), self._missing)

    def _micro_batch(self, rows: int, accumulating: bool) -> Phases:
        if not self._is_deep:
            return micro_batch(self.job, rows, accumulating, self.device)
        few = micro_batch(self._shallow(SHALLOW[0]), rows, accumulating, self.device)
        if accumulating not in self._blocks:
            more = micro_batch(self._shallow(SHALLOW[1]), rows, accumulating, self.device)
            self._blocks[accumulating] = rows, _per_block(few, more)
        measured_rows, block = self._blocks[accumulating]
        return _add(few, block, self._missing, rows / measured_rows)

    @property
    def _is_deep(self) -> bool:
        return self.job.gpt.n_layer > SHALLOW[1]

    @property
    def _missing(self) -> int:
        return self.job.gpt.n_layer - SHALLOW[0]

    def _shallow(self, n_layer: int) -> Job:
        return replace(self.job, gpt=replace(self.job.gpt, n_layer=n_layer))


def _per_block(few: Phases, more: Phases) -> Phases:
    blocks = SHALLOW[1] - SHALLOW[0]
    return {
        phase: {kind: (more[phase][kind] - size) / blocks for kind, size in kinds.items()}
        for phase, kinds in few.items()
    }


def _add(few: Phases, block: Phases, blocks: int, rows: float = 1.0) -> Phases:
    """A network with more blocks, and `rows` times as many rows as those were measured with."""
    grow = {kind: rows if kind in PER_ROW else 1.0 for kind in KINDS}
    return {
        phase: {
            kind: max(0.0, size + blocks * block[phase][kind] * grow[kind])
            for kind, size in kinds.items()
        }
        for phase, kinds in few.items()
    }


def optimizer_step(job: Job, device: str = "cpu") -> Phases:
    """What is held when most is held in a step of the optimizer, its state included."""
    with _accounts(job, job.weight_dtype, device) as ledger:
        gpt = _with_gradients(job, ledger)
        optimizer = job.optimizer(parameter_groups(gpt, job.groups))
        optimizer.step()  # makes the state
        ledger.phase(STEP)
        optimizer.step()
        states = (value for state in optimizer.state.values() for value in state.values())
        ledger.name((value for value in states if isinstance(value, Tensor)), "optimizer")
        return {STEP: ledger.peaks()[STEP]}


def micro_batch(job: Job, rows: int, accumulating: bool, device: str = "cpu") -> Phases:
    """Run a micro-batch forward and backward; the optimizer's state is not part of it.

    Weights and gradients count in the type that they are kept in, even if `param_dtype` is
    another one.
    """
    job.objective.bind(job)  # draws real tables, which are small
    computing = job.param_dtype or job.weight_dtype
    with _accounts(job, computing, device) as ledger:
        gpt = _with_gradients(job, ledger)
        if not accumulating:
            gpt.zero_grad(set_to_none=True)  # as the training module does at the end of a step
        batch = _batch(job, rows)
        ledger.name(batch, "other")
        _on_gradient(gpt.norm, lambda: ledger.phase(BLOCKS))
        _on_gradient(gpt.embed, lambda: ledger.phase(EMBEDDING))
        if job.activation_checkpointing:
            from lit_llm.training.parallel import checkpoint_activations

            checkpoint_activations(gpt, job.activation_checkpointing)
        ledger.phase(FORWARD)
        mixed = _MIXED.get(job.precision)
        with torch.autocast(device, mixed) if mixed else nullcontext():
            sums = job.objective(gpt, batch)
        ledger.phase(LOSS)
        (sums.loss * 1.0).backward()
        ledger.name((parameter.grad for parameter in gpt.parameters()), "gradients")
        peaks = ledger.peaks()
        # A frozen embedding has no backward pass.
        phases = {p: peaks[p] for p in (FORWARD, LOSS, BLOCKS, EMBEDDING) if p in peaks}
    for kinds in phases.values():
        for kind in ("weights", "gradients"):
            kinds[kind] *= job.weight_dtype.itemsize / computing.itemsize
    return phases


@contextmanager
def _accounts(job: Job, dtype: torch.dtype, device: str) -> Iterator[Ledger]:
    """Ghosts of a type, and a ledger of them."""
    vocabulary = {job.gpt.vocab_size, job.gpt.padded_vocab_size}
    others = {job.gpt.d_model, job.gpt.ff_dim, job.seq_len}
    ledger = Ledger(vocabulary - others, job.gpt.d_model)
    default = torch.get_default_dtype()
    with no_compiler(), Ghosts(device, ledger.see):
        torch.set_default_dtype(dtype)
        try:
            yield ledger
        finally:
            torch.set_default_dtype(default)


def _with_gradients(job: Job, ledger: Ledger) -> GPT:
    gpt = GPT(job.gpt)
    if job.lora is not None:
        add_adapters(gpt, job.lora)
        if job.lora.base_dtype is not None:
            cast_frozen(gpt, getattr(torch, job.lora.base_dtype))
    for parameter in gpt.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    ledger.name(gpt.buffers(), "other")
    ledger.name(gpt.parameters(), "weights")
    ledger.name((parameter.grad for parameter in gpt.parameters()), "gradients")
    return gpt


def _batch(job: Job, rows: int) -> Batch:
    tokens_BT = torch.zeros(rows, job.seq_len, dtype=torch.int64)
    return Batch(*(tokens_BT.clone() for _ in Batch._fields))


def _on_gradient(module: nn.Module, call: Callable[[], None]) -> None:
    """Call once the gradient of a module's output is known."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: call())

    module.register_forward_hook(hook)
