"""FSDP2, tensor parallelism and both together, as a strategy of the Trainer."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from lit_llm.checkpoint.sharded_io import ProcessGroupRanks, load_distributed, save_distributed
from lit_llm.checkpoint.training_state import PREFIX
from lit_llm.training.parallel import REPLICATE, SHARD, TENSOR, Sharding, each_fsdp_module


class Sharded(ModelParallelStrategy):
    """Spreads one model over all devices: replicate x shard x tensor_parallel of them.

    Devices that differ in `tensor_parallel` only see the same data and split each matrix; the
    others see different data and share parameters, gradients and optimizer state. Checkpoints
    hold a file per process and load under every strategy.

    Args:
        tensor_parallel: devices that split each matrix; auto: all of a node
        replicate: copies of the sharded model (HSDP): fewer bytes between nodes, more memory;
            auto: one for each node
        param_dtype: what FSDP2 gathers and computes in, its gradients reduced in float32; to be
            used with precision 32-true. null: the precision's own.
        reduce_each_micro_batch: reduce gradients after every micro-batch instead of once a step:
            more communication, but no device holds whole gradients
        timeout_minutes: how long a process waits for the others before the run ends
    """

    def __init__(
        self,
        tensor_parallel: int | Literal["auto"] = 1,
        replicate: int | Literal["auto"] = 1,
        param_dtype: Literal["bfloat16"] | None = None,
        reduce_each_micro_batch: bool = False,
        timeout_minutes: float = 10,
    ) -> None:
        for name, size in {"tensor_parallel": tensor_parallel, "replicate": replicate}.items():
            if size != "auto" and size < 1:
                raise ValueError(f"{name}={size} is no number of devices: give 1 or more, or auto")
        if timeout_minutes <= 0:
            raise ValueError(f"timeout_minutes={timeout_minutes} is no time: give more than 0")
        super().__init__(timeout=timedelta(minutes=timeout_minutes))
        self.tensor_parallel = tensor_parallel
        self.replicate = replicate
        self.param_dtype = getattr(torch, param_dtype) if param_dtype else None
        self.reduce_each_micro_batch = reduce_each_micro_batch

    # -- where this process stands -----------------------------------------------------------------

    def mesh_shape(self) -> tuple[int, int, int]:
        """Devices in the dimensions replicate, shard and tensor.

        Raises:
            ValueError: the world size is no multiple of what is asked for.
        """
        replicate = self.num_nodes if self.replicate == "auto" else self.replicate
        tensor = self.num_processes if self.tensor_parallel == "auto" else self.tensor_parallel
        shard, rest = divmod(self.world_size, replicate * tensor)
        if rest or not shard:
            raise ValueError(
                f"{self.world_size} devices are no multiple of tensor_parallel={tensor} x "
                f"replicate={replicate}: start with another number of processes, or change these"
            )
        return replicate, shard, tensor

    @property
    def tensor_parallel_size(self) -> int:
        """Devices that share each token."""
        return self.mesh_shape()[2]

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        tensor = self.tensor_parallel_size
        return {"num_replicas": self.world_size // tensor, "rank": self.global_rank // tensor}

    @property
    def sharding(self) -> Sharding:
        """For building the network."""
        return Sharding(self.device_mesh, self.root_device, self.param_dtype)

    def setup_environment(self) -> None:
        # Not the parent's: its mesh has two dimensions and no place for copies.
        Strategy.setup_environment(self)
        shape = self.mesh_shape()
        assert prod(shape) == self.world_size
        self._setup_distributed()
        self._device_mesh = init_device_mesh(
            self.root_device.type, shape, mesh_dim_names=(REPLICATE, SHARD, TENSOR)
        )

    # -- training ----------------------------------------------------------------------------------

    @contextmanager
    def block_backward_sync(self) -> Generator:
        """Entered around every micro-batch but a step's last."""
        if self.reduce_each_micro_batch:
            yield
            return
        assert self.model is not None
        each_fsdp_module(self.model, lambda m: m.set_requires_gradient_sync(False, recurse=False))
        yield
        each_fsdp_module(self.model, lambda m: m.set_requires_gradient_sync(True, recurse=False))

    # -- checkpoints -------------------------------------------------------------------------------
    # The parent hands whole folders to torch.distributed.checkpoint, which neither verifies nor
    # replaces them atomically, and puts weights into the model before anybody has compared the
    # configurations. Here loading only reads; the base class's hooks then put the tensors in.

    restore_checkpoint_after_setup = True
    lightning_restore_optimizer = True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return getattr(optimizer, "_optimizer", optimizer).state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        assert storage_options is None
        save_distributed(checkpoint, filepath, ProcessGroupRanks())

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict:
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        weights = {n.removeprefix(PREFIX): w for n, w in state.items() if n.startswith(PREFIX)}
        parameters = [
            parameter
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        return load_distributed(checkpoint_path, weights, parameters, ProcessGroupRanks())

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        states: list[dict[str, Tensor]] = checkpoint["optimizer_states"]
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
