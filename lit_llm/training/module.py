"""The seam between the network and the Trainer.

The network knows nothing of training, the Trainer nothing of language. This module knows a
little of both and holds no numbers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_llm.checkpoint.base import BASE, LORA, describe_base, refuse_other_base
from lit_llm.checkpoint.bundle import MODEL, check_weights
from lit_llm.checkpoint.find import resolve
from lit_llm.checkpoint.plain import gpt_to_plain, part_to_plain
from lit_llm.checkpoint.ranks import OneRank, ProcessGroupRanks, together
from lit_llm.checkpoint.reader import Reader
from lit_llm.checkpoint.sharded_io import verify_together
from lit_llm.checkpoint.training_state import PREFIX
from lit_llm.data.batch import Batch
from lit_llm.data.module import TextData
from lit_llm.model.config import GPTConfig
from lit_llm.model.gpt import GPT
from lit_llm.model.init import init_weights
from lit_llm.model.lora import Lora, base_of, init_adapters, learned_of
from lit_llm.model.size import size
from lit_llm.objective import CausalLM, Objective
from lit_llm.optim.groups import parameter_groups
from lit_llm.optim.schedule import Schedule
from lit_llm.training.allocator import keep_freed_memory
from lit_llm.training.gradients import normalize_and_clip
from lit_llm.training.guards import Guards
from lit_llm.training.lean import log_again, make_lean, restore
from lit_llm.training.loops import (
    apply_configured_options,
    count_batches,
    set_accumulation,
)
from lit_llm.training.meter import TrainMeter, ValMeter
from lit_llm.training.parallel import build, copy_full
from lit_llm.training.resume import compare, compare_data
from lit_llm.training.seeds import mix, seed_generators
from lit_llm.training.skipping import skip_where, skips_on_device
from lit_llm.training.strategy import Sharded


class LitLLM(L.LightningModule):
    """A GPT under training, from random weights or from a checkpoint's.

    Args:
        gpt: the network to train
        objective: what it learns
        optimizer: builds the optimizer from parameter groups
        groups: per kind of parameter (embedding, matrix, head, vector), what overrides the
            optimizer's settings, such as {embedding: {lr: 0.01}}
        schedule: factor of the learning rates at (step, max_steps); null keeps them constant
        init_from: checkpoint whose weights start this run, as when fine-tuning; to go on with
            an interrupted run, with its step count and optimizer state, give --ckpt_path instead
        lora: freeze those weights and train small matrices beside them; null trains the weights
        seed: decides initial weights, dropout and masks; comes from seed_everything
        compile: compile each block; pays on GPUs, and in long runs of small networks on CPUs
        activation_checkpointing: keep only the inputs of every n-th block for the backward pass
            and compute the rest again; 1: of every block, for far less memory and a third more
            time; 0: of none
    """

    def __init__(
        self,
        gpt: GPTConfig,
        objective: Objective | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] = AdamW,
        groups: dict[str, dict[str, Any]] | None = None,
        schedule: Schedule | None = None,
        init_from: str | None = None,
        lora: Lora | None = None,
        seed: int = 1337,
        compile: bool = False,
        activation_checkpointing: int = 0,
    ) -> None:
        super().__init__()
        if activation_checkpointing < 0:
            raise ValueError(
                f"activation_checkpointing={activation_checkpointing} is no distance: give 0 for "
                "none, 1 for every block, n for every n-th"
            )
        if lora is not None and init_from is None:
            raise ValueError(
                "model.lora adapts trained weights, but model.init_from is null: give the "
                "checkpoint that it is to start from, or remove model.lora"
            )
        self.gpt_config = gpt
        self.objective = objective or CausalLM()
        self.optimizer = optimizer
        self.groups = groups
        self.schedule = schedule
        self.init_from = init_from
        self.lora = lora
        self.base: Path | None = None
        """The checkpoint of the weights that adapters belong to; None: what init_from leads to."""
        self._base_taken: dict[str, str] | None = None
        self.seed = seed
        self.compile_blocks = compile
        self.activation_checkpointing = activation_checkpointing
        self.run_config: dict[str, Any] | None = None
        """The whole configuration of the run, as plain values; the command line sets it."""
        self.gpt: GPT | None = None
        self._configured: list[dict[str, Any]] = []
        self.guards = Guards()
        """Who may leave out a step; the callbacks that guard a run put themselves in."""
        self.train_meter = TrainMeter()
        self.val_meter = ValMeter()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning notes it twice around each of its hooks, and
            self.__dict__[name] = value  # PyTorch takes 2 us to find that it is no parameter
        else:
            super().__setattr__(name, value)

    # -- building ------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the weights here, not in __init__: the strategy has chosen device and sharding."""
        if self.gpt is not None:
            return
        strategy = self.trainer.strategy
        self.gpt = build(
            self.gpt_config,
            strategy.sharding if isinstance(strategy, Sharded) else None,
            lora=self.lora,
            activation_checkpointing=self.activation_checkpointing,
            compile=self.compile_blocks,
        )
        if self.init_from is None:
            init_weights(self.gpt, self.seed, self.gpt_config.n_layer, copy_full)
        elif self.lora is None:
            self._take_weights(resolve(self.init_from))
        else:
            self._refuse_base_dtype()
            self.base = self.base or resolve(self.init_from)
            self._take_weights(self.base)
            # Said now: at a later save another run may have put other weights there, or none.
            self._base_taken = describe_base(self.base)
            init_adapters(self.gpt, self.seed, copy_full)

    def _refuse_base_dtype(self) -> None:
        precision = self.trainer.precision
        if self.lora is not None and self.lora.base_dtype and precision != "bf16-mixed":
            raise ValueError(
                f"lora.base_dtype={self.lora.base_dtype} needs bf16-mixed, whose matrix products "
                f"are of two bfloat16, got trainer.precision={precision}: change one of them"
            )

    @torch.no_grad()
    def _take_weights(self, folder: Path) -> None:
        """Take the weights of a checkpoint, of which each process reads its own part."""
        state = base_of(cast(GPT, self.gpt).state_dict())

        def read() -> None:
            reader = Reader(folder)
            check_weights(state, reader.skeleton())
            for name, target in state.items():
                target.copy_(reader.read_like(MODEL + name, target))

        ranks = ProcessGroupRanks() if dist.is_initialized() else OneRank()
        verify_together(folder, ranks)
        together(ranks, read)

    def setup(self, stage: str) -> None:
        self._data.seed = self.seed
        self.objective.bind(self._data.tokenizer)
        token_bytes_V = self._data.token_bytes_V  # asks the tokenizer about every id
        for meter in (self.train_meter, self.val_meter):
            meter.prepare(token_bytes_V, self.trainer.strategy.root_device)
        if stage == "fit":
            set_accumulation(self.trainer, self._data.accumulate)
            make_lean(self.trainer, self)
            if self.trainer.strategy.root_device.type == "cpu":
                keep_freed_memory()

    def teardown(self, stage: str) -> None:
        restore(self.trainer, self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.gpt is not None
        optimizer = self.optimizer(parameter_groups(self.gpt, self.groups))
        self._configured = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        if self.schedule is None:
            return optimizer
        if self.trainer.max_steps < 1:
            raise ValueError(
                f"a schedule needs to know where training ends, got trainer.max_steps="
                f"{self.trainer.max_steps}: give --trainer.max_steps N, or model.schedule: null"
            )
        factor = partial(self.schedule, total_steps=self.trainer.max_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    # -- training ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and hasattr(self.trainer.optimizers[0], "_step_supports_amp_scaling"):
            raise ValueError(
                "trainer.precision=16-mixed scales the loss, and a fused optimizer would see the "
                "scaled gradients clipped:\ngive --model.optimizer.fused false, or bf16-mixed"
            )
        counts = size(self.gpt_config, lora=self.lora)
        tokens = self._data.nominal_tokens_per_step
        learning = f" ({counts.trained:,} of them learn)" if self.lora else ""
        self.print(
            f"{counts.parameters:,} parameters{learning}, {tokens:,} tokens per step, "
            f"{counts.flops_per_token * tokens:.2g} FLOPs per step"
        )

    def on_train_start(self) -> None:
        for line in apply_configured_options(self.trainer, self._configured):
            self.print(f"resumed with {line}")
        self.train_meter.reset()
        if len(self.guards) and self.device.type != "cpu":
            optimizer = self.trainer.optimizers[0]
            if not skips_on_device(optimizer):
                self.print(
                    f"{type(optimizer).__name__} cannot leave out a step on the device: the guards "
                    "wait for the device once a step; see docs/optim.md"
                )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        # Asked here, where the batch still is on the CPU: later it would wait for the device.
        self.train_meter.saw_batch(self.objective.has_targets(batch))
        if self.device.type == "cuda":
            self.objective.expect(batch)
        return batch

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        if device.type == "cpu" and isinstance(batch, Batch):
            return batch  # it is there; Lightning would ask each of its fields
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a micro-batch, scaled so that the step's gradient is that of a token mean.

        Lightning divides by the number of micro-batches and data-parallel strategies average over
        ranks; multiplying by both leaves a plain sum, divided by the nominal tokens of the step.
        `configure_gradient_clipping` replaces nominal by valid once the step's count is known.
        """
        trainer, data = self.trainer, self._data
        accumulate = trainer.accumulate_grad_batches
        seed = mix(self.seed, trainer.global_step, batch_idx % accumulate, data.dp_rank)
        seed_generators(seed, self.device)
        sums = self.objective(cast(GPT, self.gpt), batch)
        self.train_meter.add(sums, count=self._logs(trainer.global_step + 1))
        return sums.loss * (accumulate * data.dp_size / data.nominal_tokens_per_step)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Make the gradient that of the mean over the step's valid tokens, then clip it.

        This is also where the guards judge the step, in the last moment before its update.
        """
        meter = self.train_meter
        valid_tokens, loss = self._dp_sum(meter.tokens, meter.loss)
        meter.grad_norm = normalize_and_clip(
            optimizer,
            factor=self._data.nominal_tokens_per_step / valid_tokens.clamp(min=1),
            clip_val=gradient_clip_val,
            algorithm=gradient_clip_algorithm or "norm",
        )
        if not meter.has_targets and int(valid_tokens) == 0:
            # Nothing to learn from: without gradients the optimizer passes every parameter by,
            # its moments and its weight decay included.
            optimizer.zero_grad(set_to_none=True)
            return
        skip = None
        if self.guards:
            step = self.trainer.global_step + 1
            skip = self.guards.judge(step, loss / valid_tokens, meter.grad_norm)
        skip_where(optimizer, skip)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches:
            return
        step = self.trainer.global_step
        on_log_step = self._logs(step)
        if on_log_step:
            metrics = self.train_meter.compute(self._dp_sum)
            for group in self.trainer.optimizers[0].param_groups:
                metrics[f"lr/{group['kind']}"] = group["lr"]
            log_again(self, {**metrics, "step": float(step)})
        self.train_meter.reset()
        # Lightning would keep them through the next forward pass, whose activations come on top.
        for group in self.trainer.optimizers[0].param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        self._hear_guards(on_log_step)

    def _logs(self, step: int) -> bool:
        """Not in every step: what is logged is read, and reading waits for the device."""
        return step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def _hear_guards(self, on_log_step: bool) -> None:
        """Let the guards hear what the device has decided, as far as nothing waits for it.

        Log steps wait for the device in any case. Several processes have to hear at the same step,
        and on GPUs each knows at another moment: there it is on log steps only.
        """
        if on_log_step or self.trainer.world_size == 1 or self.device.type == "cpu":
            self.guards.hear(wait=on_log_step)

    def on_train_end(self) -> None:
        self.guards.hear(wait=True)

    # -- validation ----------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        generator = self._val_generator(batch_idx)
        self.val_meter.add(self.objective(cast(GPT, self.gpt), batch, generator))

    def _val_generator(self, batch_idx: int) -> torch.Generator:
        """Masks are drawn alike at every validation."""
        generator = torch.Generator(self.device)
        return generator.manual_seed(mix(self.seed, -1, batch_idx, self._data.dp_rank))

    def on_validation_epoch_end(self) -> None:
        metrics = self.val_meter.compute()
        if self.trainer.state.fn == TrainerFn.FITTING:
            # Else the loggers would count batches, and those from 0 on at this place.
            metrics["step"] = torch.tensor(float(self.trainer.global_step))
        self.log_dict(metrics)
        self.val_meter.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        generator = self._val_generator(batch_idx)
        self.val_meter.add(self.objective.evaluate(cast(GPT, self.gpt), batch, generator))

    def on_test_epoch_end(self) -> None:
        names = {"val/": "test/", "perplexity": self.objective.perplexity_name}
        for name, value in self.val_meter.compute().items():
            for old, new in names.items():
                name = name.replace(old, new)
            self.log(name, value)
        self.val_meter.reset()

    # -- checkpoints ---------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lit_llm"] = {
            "bundle": {
                "model": gpt_to_plain(self.gpt_config),
                "objective": part_to_plain(self.objective),
                "bidirectional": self.objective.bidirectional,
                "chat": self._data.is_chat,
                "step": self.trainer.global_step,
                "config": self.run_config or {},
                "data": self._data.describe(),
                **self._adapters_and_base(),
            },
            "tokenizer": self._data.tokenizer,
        }

    def _adapters_and_base(self) -> dict[str, Any]:
        if self.lora is None or self._base_taken is None:
            return {}
        return {LORA: asdict(self.lora), BASE: self._base_taken}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What checkpoints hold: of a LoRA run the adapters; its base has the rest."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        if self.lora is None:
            return state
        ours, gpt = {}, {}
        for name, value in state.items():
            if name.startswith(PREFIX):
                gpt[name.removeprefix(PREFIX)] = value
            else:
                ours[name] = value
        learned = learned_of(gpt, self.lora)
        return {**ours, **{PREFIX + name: value for name, value in learned.items()}}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Put back what `state_dict` gave."""
        if self.lora is not None and strict:
            check_weights(self.state_dict(), state_dict)
            strict = False  # of what is not there, the base's weights are in place
        return super().load_state_dict(state_dict, strict, assign)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        bundle = checkpoint["lit_llm"]["bundle"]
        continues = self.trainer.state.fn == TrainerFn.FITTING
        if continues:
            if self.run_config is not None:
                for line in compare(bundle["config"], self.run_config):
                    self.print(line)
            count_batches(checkpoint, self._data.accumulate)
        assert self.gpt is not None
        compare_data(bundle["data"], self._data.describe(), continues=continues)
        if self.lora is not None and self.base is not None:
            refuse_other_base(bundle, self.base)
        weights = checkpoint["state_dict"].items()
        expected = self.gpt.state_dict()
        check_weights(
            learned_of(expected, self.lora) if self.lora else expected,
            {name.removeprefix(PREFIX): w for name, w in weights},
        )

    # -- where this process stands ---------------------------------------------------------------

    @property
    def _data(self) -> TextData:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def _dp_sum(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Sum each of some scalars over the ranks that see different data."""
        if not dist.is_initialized():
            return values
        total = torch.stack(values)
        dist.all_reduce(total)  # not strategy.reduce, which waits for the device at a barrier
        # With tensor parallelism each value has been added once by every device that shares it.
        return (total * self._data.dp_size / self.trainer.world_size).unbind()
